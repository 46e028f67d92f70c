"""Teachers: fine-tune an encoder, measure a classifier, combine several with temperatures."""
