//! From a request path to a file and its representation: bytes, type, ETag. Never outside the directory. Unaware of requests.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::base::digest::Digest;

/// A file's content at one moment.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    pub(super) modified: SystemTime,
    pub(super) content_type: &'static str,
    /// Already packed by its format.
    packed: bool,
}

/// The file that `url_path` (still percent-encoded) names below `root` (canonical); `None`: nothing to serve.
pub(super) fn locate(root: &Path, url_path: &str) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for part in url_path.strip_prefix('/')?.split('/') {
        let name = percent_decode(part)?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return None;
        }
        path.push(name);
    }
    let path = path.canonicalize().ok()?;
    (path.starts_with(root) && path.is_file()).then_some(path)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Content {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let modified = fs::metadata(path)?.modified()?;
        let (content_type, packed) = kind(path);
        Ok(Self { bytes: fs::read(path)?, modified, content_type, packed })
    }

    /// True if it is sent packed to a client that takes gzip.
    pub(super) fn packs(&self) -> bool {
        !self.packed && !self.bytes.is_empty()
    }

    /// The strong ETag of the content, or of its packed form.
    pub(super) fn etag(&self, packed: bool) -> String {
        let suffix = if packed { "-gzip" } else { "" };
        format!("\"{}{suffix}\"", Digest::of(&self.bytes).hex())
    }

    /// The packed form.
    pub(super) fn gzip(&self) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.bytes)?;
        encoder.finish()
    }
}

/// Media type by extension, and whether the format is packed already.
fn kind(path: &Path) -> (&'static str, bool) {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        "json" => ("application/json", false),
        "jsonl" | "ndjson" => ("application/x-ndjson", false),
        "csv" => ("text/csv; charset=utf-8", false),
        "tsv" => ("text/tab-separated-values; charset=utf-8", false),
        "txt" | "log" => ("text/plain; charset=utf-8", false),
        "md" => ("text/markdown; charset=utf-8", false),
        "html" | "htm" => ("text/html; charset=utf-8", false),
        "css" => ("text/css; charset=utf-8", false),
        "js" => ("text/javascript; charset=utf-8", false),
        "xml" => ("application/xml", false),
        "svg" => ("image/svg+xml", false),
        "yaml" | "yml" => ("application/yaml", false),
        "png" => ("image/png", true),
        "jpg" | "jpeg" => ("image/jpeg", true),
        "gz" | "tgz" => ("application/gzip", true),
        "zst" => ("application/zstd", true),
        "zip" => ("application/zip", true),
        "parquet" => ("application/vnd.apache.parquet", true),
        _ => ("application/octet-stream", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("www").canonicalize().unwrap_or_else(|_| {
            fs::create_dir_all(dir.path().join("www/sub")).unwrap();
            dir.path().join("www").canonicalize().unwrap()
        });
        fs::write(dir.path().join("secret"), "s").unwrap();
        fs::write(root.join("a b.txt"), "a").unwrap();
        fs::write(root.join("sub/x"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("out")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("up")).unwrap();
        std::os::unix::fs::symlink(root.join("sub/x"), root.join("inside")).unwrap();

        assert_eq!(locate(&root, "/a%20b.txt"), Some(root.join("a b.txt")));
        assert_eq!(locate(&root, "/inside"), Some(root.join("sub/x")));
        for path in [
            "/../secret",
            "/%2e%2e/secret",
            "/sub/../../secret",
            "/..%2fsecret",
            "/%2Fetc%2Fpasswd",
            "/out",
            "/up/secret",
            "/sub",
            "/sub/",
            "/",
            "",
            "//etc/passwd",
            "/a%00",
            "/%zz",
            "/%f",
            "/none",
        ] {
            assert_eq!(locate(&root, path), None, "{path}");
        }
    }

    #[test]
    fn the_packed_form_has_an_etag_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, "[1]").unwrap();
        let content = Content::read(&path).unwrap();
        assert!(content.packs());
        assert_ne!(content.etag(true), content.etag(false));
        assert_eq!(content.content_type, "application/json");
    }
}
