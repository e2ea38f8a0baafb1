"""Published files to rows of chat, mixtures and subsets."""
