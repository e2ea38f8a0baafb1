"""What a run keeps on disk: its folder, model, checkpoints and fingerprint."""
