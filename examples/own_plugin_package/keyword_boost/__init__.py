"""A reranker for the rerank orchestrator."""
