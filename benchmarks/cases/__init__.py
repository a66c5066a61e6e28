"""What is measured, for the entry points of the folder above."""
