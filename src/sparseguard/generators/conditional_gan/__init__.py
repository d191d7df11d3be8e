"""Class-conditional GAN, trained on auxiliary images for defenses."""
