"""What pglapse costs, beside what people would use instead: see docs/benchmarks.md."""
