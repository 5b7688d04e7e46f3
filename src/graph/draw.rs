//! Drawing a graph: text, dot, mermaid, JSON, SVG.
use super::Graph;
/// text
pub fn text(_g: &Graph) -> String {
    String::new()
}
/// dot
pub fn dot(_g: &Graph) -> String {
    String::new()
}
/// mermaid
pub fn mermaid(_g: &Graph) -> String {
    String::new()
}
/// svg
pub fn svg(_g: &Graph) -> String {
    String::new()
}
/// json
pub fn json(_g: &Graph) -> serde_json::Value {
    serde_json::Value::Null
}
