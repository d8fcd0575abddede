"""The engine: how Ultralytics is made to train what was asked for, and how a run is read back."""
