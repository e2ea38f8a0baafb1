"""The one path that generates: prompts, engines, responses and their scores."""
