"""The one step generator, batches, augmentation and the trainers that consume them."""
