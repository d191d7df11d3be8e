"""Style-based GAN: networks, training, and priors made of it."""
