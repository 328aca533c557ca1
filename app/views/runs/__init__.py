"""The pages of training runs, read from their files in any state and never written."""
