//! Drawing a graph: text, dot, mermaid, JSON, SVG.
