"""What every HTML page shares: drawings, style, frame."""
