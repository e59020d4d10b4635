"""Everything SQL: tables, loading a batch, writing it, pages of the ledger, connections."""
