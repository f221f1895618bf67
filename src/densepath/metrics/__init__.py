"""Pure figures of logits and targets; training and evaluation both use them."""
