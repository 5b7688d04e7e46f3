//! `archive.version`: files kept together under the digest of their content. Unaware of what they hold and of older versions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::METADATA;
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::base::{canonical, digest::Digest};

/// Where a version is put together before it has its name.
const PARTIAL: &str = ".partial";

/// The stage.
pub struct Version;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Input name -> folder inside the version for its files; the files of inputs not named here stand at its top.
    #[serde(default = "default_folders")]
    folders: BTreeMap<String, String>,
}

fn default_folders() -> BTreeMap<String, String> {
    BTreeMap::from([("raw".to_owned(), "raw".to_owned())])
}

/// `metadata.json`, without the version's own digest: what that is the digest of.
#[derive(Serialize)]
struct Content {
    format: u32,
    files: Vec<Entry>,
    params: Value,
}

/// A file of the version.
#[derive(Serialize)]
struct Entry {
    /// The input that gave it.
    role: String,
    /// Its path inside the version.
    name: String,
    bytes: u64,
    digest: Digest,
}

impl Stage for Version {
    fn name(&self) -> &'static str {
        "archive.version"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Keeps files together as a version named by their content.\n\
                \n\
                Writes one directory, named by the first 16 hex digits of the version's digest, into the output 'versions' (an\n\
                'append' directory, so that versions gather there): the files under their own names, those of an input named in\n\
                'folders' (default: raw -> raw/) in that folder, directories with all they hold. Equal content has an equal name, so\n\
                unchanged data makes no new version. metadata.json: version (the full digest), format, files (role = input, name, bytes, BLAKE3\n\
                digest; by name), params; no time: when a version was made is in the run record. The version's digest is that of\n\
                the canonical JSON of the rest of metadata.json, so it covers every byte in the directory.",
        )
        .input_list("*", "files or directories to keep; the input's name is their role")
        .output_dir("versions", "directory that gets the version")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        for (input, folder) in &params.folders {
            if !is_plain(Path::new(folder)) {
                return Err(ParamFault {
                    path: format!("folders.{input}"),
                    message: format!(
                        "'{folder}' is no folder inside the version (expected a relative path without '..', or '' for its top)"
                    ),
                });
            }
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let sources = Sources::collect(&params, &ctx.inputs)?;
        let versions = ctx.output("versions")?.to_owned();
        let partial = versions.join(PARTIAL);
        let mut files = Vec::new();
        for (name, source) in &sources.files {
            if ctx.cancel.is_cancelled() {
                return Err(StageError::new("cancelled"));
            }
            // The digest is taken of the copy, so it is right whatever becomes of the source.
            let (bytes, digest) = copy(source, &partial.join(name))?;
            files.push(Entry { role: source.role.clone(), name: name.clone(), bytes, digest });
        }
        let content = Content { format: 1, files, params: json!({"folders": params.folders}) };
        let content = serde_json::to_value(&content).map_err(|e| StageError::new(e.to_string()))?;
        let digest = Digest::of(canonical::to_string(&content).as_bytes());
        let mut metadata = json!({"version": digest});
        if let (Value::Object(all), Value::Object(rest)) = (&mut metadata, content) {
            all.extend(rest);
        }
        let text =
            serde_json::to_string_pretty(&metadata).map_err(|e| StageError::new(e.to_string()))? + "\n";
        fs::write(partial.join(METADATA), text)
            .and_then(|()| fs::rename(&partial, versions.join(digest.short())))
            .map_err(|e| StageError::io("finish", Path::new("versions"), e))?;
        let bytes: u64 =
            metadata["files"].as_array().into_iter().flatten().filter_map(|f| f["bytes"].as_u64()).sum();
        ctx.log(format!("version {}: {} files, {bytes} bytes", digest.short(), sources.files.len()));
        Ok(Done::Made)
    }
}

/// A file to keep.
struct Source {
    path: PathBuf,
    /// Its name in messages.
    name: String,
    role: String,
}

/// The files to keep, by their path inside the version.
#[derive(Default)]
struct Sources {
    files: BTreeMap<String, Source>,
}

impl Sources {
    fn collect(
        params: &Params,
        inputs: &IndexMap<String, Vec<crate::api::InputFile>>,
    ) -> Result<Self, StageError> {
        let mut sources = Self::default();
        for (role, file) in inputs.iter().flat_map(|(role, files)| files.iter().map(move |file| (role, file)))
        {
            let folder = params.folders.get(role).map_or("", String::as_str);
            let place = Path::new(folder).join(file.file_name());
            sources.add(
                &place,
                Source { path: file.path.clone(), name: file.name.clone(), role: role.clone() },
            )?;
        }
        if sources.files.is_empty() {
            return Err(StageError::new("nothing to keep: the inputs hold no file"));
        }
        sources.refuse_nested()?;
        Ok(sources)
    }

    /// Adds a file, or everything below a directory.
    fn add(&mut self, place: &Path, source: Source) -> Result<(), StageError> {
        let failed = |e: std::io::Error| StageError::io("read", Path::new(&source.name), e);
        let metadata = fs::metadata(&source.path).map_err(failed)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&source.path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let shown = format!("{}/{}", source.name.trim_end_matches('/'), name.to_string_lossy());
                let inner = Source { path: entry.path(), name: shown, role: source.role.clone() };
                self.add(&place.join(name), inner)?;
            }
            return Ok(());
        }
        if !metadata.is_file() {
            return Err(StageError::new(format!("{}: neither a file nor a directory", source.name)));
        }
        let Some(place) = place.to_str() else {
            return Err(StageError::new(format!("{}: a name that is not UTF-8 cannot be kept", source.name)));
        };
        if place == METADATA {
            return Err(StageError::new(format!(
                "{} (input '{}') would replace the version's own {METADATA}",
                source.name, source.role
            ))
            .hint("put its input into a folder of its own with the parameter 'folders'"));
        }
        if let Some(other) = self.files.get(place) {
            return Err(twice(place, other, &source));
        }
        self.files.insert(place.to_owned(), source);
        Ok(())
    }

    /// A file and a folder cannot have one name.
    fn refuse_nested(&self) -> Result<(), StageError> {
        for (place, source) in &self.files {
            for folder in Path::new(place).ancestors().skip(1).filter_map(Path::to_str) {
                if let Some(other) = self.files.get(folder) {
                    return Err(twice(folder, other, source));
                }
            }
        }
        Ok(())
    }
}

fn twice(place: &str, first: &Source, second: &Source) -> StageError {
    StageError::new(format!(
        "two files would be '{place}' in the version: {} (input '{}') and {} (input '{}')",
        first.name, first.role, second.name, second.role
    ))
    .hint("put one of the inputs into a folder of its own with the parameter 'folders'")
}

/// True for a relative path of normal components only.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Copies the bytes, not the permissions; gives the copy's size and digest.
fn copy(source: &Source, to: &Path) -> Result<(u64, Digest), StageError> {
    let failed = |e: std::io::Error| StageError::io("keep", Path::new(&source.name), e);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut from = File::open(&source.path).map_err(failed)?;
    let mut into = File::create(to).map_err(failed)?;
    let bytes = std::io::copy(&mut from, &mut into).map_err(failed)?;
    drop(into);
    Ok((bytes, Digest::of_file(to).map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, Finished};
    use expect_test::expect;

    fn bench(with: Value) -> Bench<'static> {
        Bench::new(&Version, with)
            .file("tables", "out/merged.csv", "a,b\r\n1,2\r\n")
            .file("reports", "out/join.json", "{}\n")
            .file("raw", "clean/2.json", "[2]")
            .file("raw", "clean/1.json", "[1]")
    }

    fn ids(done: &Finished) -> Vec<String> {
        let entries = fs::read_dir(done.path("versions")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn message(done: Finished) -> String {
        let error = done.result.unwrap_err();
        [vec![error.message], error.hints].concat().join("\n")
    }

    #[test]
    fn a_version_holds_the_files_and_says_what_they_are() {
        let done = bench(json!({})).run(&["versions/"]).ok();
        let [id] = ids(&done).try_into().unwrap();
        let at = |name: &str| fs::read_to_string(done.path("versions").join(&id).join(name)).unwrap();
        assert_eq!(at("merged.csv"), "a,b\r\n1,2\r\n");
        assert_eq!(at("raw/1.json"), "[1]");
        let metadata: Value = serde_json::from_str(&at("metadata.json")).unwrap();
        let digest = metadata["version"].as_str().unwrap();
        assert!(digest.strip_prefix("b3:").unwrap().starts_with(&id) && id.len() == 16);
        let files: Vec<_> = metadata["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| (f["role"].as_str().unwrap(), f["name"].as_str().unwrap(), f["bytes"].as_u64().unwrap()))
            .collect();
        assert_eq!(
            files,
            [
                ("reports", "join.json", 3),
                ("tables", "merged.csv", 10),
                ("raw", "raw/1.json", 3),
                ("raw", "raw/2.json", 3)
            ]
        );
        assert_eq!(metadata["files"][2]["digest"], json!(Digest::of(b"[1]")));
        assert_eq!(metadata["params"], json!({"folders": {"raw": "raw"}}));
    }

    #[test]
    fn the_name_is_a_function_of_the_content() {
        let first = ids(&bench(json!({})).run(&["versions/"]).ok());
        let other_order = Bench::new(&Version, json!({}))
            .file("raw", "x/1.json", "[1]")
            .file("raw", "x/2.json", "[2]")
            .file("reports", "elsewhere/join.json", "{}\n")
            .file("tables", "merged.csv", "a,b\r\n1,2\r\n")
            .run(&["versions/"])
            .ok();
        assert_eq!(ids(&other_order), first);
        let more = bench(json!({})).file("raw", "clean/3.json", "[3]").run(&["versions/"]).ok();
        assert_ne!(ids(&more), first);
    }

    #[test]
    fn a_directory_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c"), "c").unwrap();
        fs::write(root.join("d"), "d").unwrap();
        let done = Bench::new(&Version, json!({})).path("raw", &root).run(&["versions/"]).ok();
        let at = done.path("versions").join(&ids(&done)[0]);
        assert_eq!(fs::read_to_string(at.join("raw/tree/a/b/c")).unwrap(), "c");
        assert_eq!(fs::read_to_string(at.join("raw/tree/d")).unwrap(), "d");
    }

    #[test]
    fn two_files_of_one_name_are_refused_by_both_names() {
        let done = bench(json!({})).file("reports", "old/merged.csv", "x").run(&["versions/"]);
        expect![[r#"
            two files would be 'merged.csv' in the version: out/merged.csv (input 'tables') and old/merged.csv (input 'reports')
            put one of the inputs into a folder of its own with the parameter 'folders'"#]]
        .assert_eq(&message(done));
        let done = bench(json!({})).file("reports", "old/raw", "x").run(&["versions/"]);
        expect![[r#"
            two files would be 'raw' in the version: old/raw (input 'reports') and clean/1.json (input 'raw')
            put one of the inputs into a folder of its own with the parameter 'folders'"#]]
        .assert_eq(&message(done));
        let done = bench(json!({})).file("reports", "v/metadata.json", "x").run(&["versions/"]);
        expect![[r#"
            v/metadata.json (input 'reports') would replace the version's own metadata.json
            put its input into a folder of its own with the parameter 'folders'"#]]
        .assert_eq(&message(done));
        let with = json!({"folders": {"raw": "raw", "reports": "reports/old"}});
        bench(with).file("reports", "old/merged.csv", "x").run(&["versions/"]).ok();
        let done = Bench::new(&Version, json!({})).run(&["versions/"]);
        assert_eq!(message(done), "nothing to keep: the inputs hold no file");
    }

    #[test]
    fn a_folder_stays_inside_the_version() {
        for folder in ["/etc", "../x", "a/../../b"] {
            let fault = Version.check(&json!({"folders": {"raw": folder}})).unwrap_err();
            assert_eq!(fault.path, "folders.raw");
        }
        Version.check(&json!({"folders": {"raw": ""}})).unwrap();
    }
}
