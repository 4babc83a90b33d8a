"""Action-free pre-training from videos (Seo et al., ICML 2022)."""
