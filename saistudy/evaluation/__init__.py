"""What a trained model can do: predictions per image, metrics and statistics on them."""
