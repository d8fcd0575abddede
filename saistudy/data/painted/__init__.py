"""The synthetic twins: painted pictures, their published layouts, and the faults planted in them."""
