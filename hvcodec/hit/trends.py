def checks(results, data): return []
