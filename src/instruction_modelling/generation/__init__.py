"""What a model answers: prompts, engines, responses and their scores."""
