//! The artifact store: zstd blobs, SQLite index, workspace state, stat cache, restore, gc, locks. Unaware of graphs.
