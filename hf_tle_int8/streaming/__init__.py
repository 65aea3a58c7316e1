"""A float checkpoint folder to the INT8 one that `from_pretrained` and `save_pretrained` write, tensor by tensor."""
