"""Guards: what looks at the queries of a deployed model."""
