"""The arms of a comparison as data: a name and the flags of src/finetune.py that make it."""
