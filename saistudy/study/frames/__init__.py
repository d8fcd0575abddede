"""What the study's figures are drawn from: long frames, computed from records and the files beside them."""
