"""What is trained on: readers, checks, trees, twins, staging. Imports neither torch nor ultralytics."""
