"""One adapter per third-party network behind small protocols, and where their weights come from."""
