"""Find files that no row knows, in the temporary areas of a storage, and the other way round."""
