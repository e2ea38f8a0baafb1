"""What can a tuned model write again of the instructions it was trained on?"""
