//! Why a node runs: the difference of two manifests, or another cause. Wording is separate from finding.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

use super::{Components, is_discovered};

/// Why a node runs, is restored, or is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No success of this node is recorded here.
    NeverRan,
    /// Likewise, but this other node has the same key, and its result.
    Equal(String),
    /// Components differ from the last success.
    Changed(Vec<Change>),
    /// The key is that of the last success, but its result is not in the cache.
    ResultLost,
    /// A blob is missing or damaged.
    BytesLost(String),
    /// An output is not in place.
    OutputMissing(String),
    /// An output differs from what was recorded.
    OutputChanged(String),
    /// Policy never.
    Never,
    /// `--force`
    Forced,
    /// `--remeasure`
    Remeasured,
    /// `--no-cache`
    NoCache,
    /// The stage is asked whether its result stands.
    Check,
    /// The stage was asked, and its result does not stand.
    SourceChanged,
}

/// One component that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name in the manifest.
    pub component: String,
    /// Before; `None` if it is new.
    pub old: Option<String>,
    /// Now; `None` if it is gone.
    pub new: Option<String>,
}

/// Components that differ, in the order of the new manifest, gone ones last, then inputs whose files stand in another order.
/// Empty only if both are equal, but for discovered inputs that `new` does not know yet. Of components with one name (files outside the
/// root) those that are the same belong together, then those that are left, one by one.
pub fn changes(old: &Components, new: &Components) -> Vec<Change> {
    // what a depfile named is compared only where both know it
    let known = new.iter().any(|(name, _)| is_discovered(name));
    let old: Vec<Component<'_>> =
        old.iter().map(component).filter(|(name, _)| known || !is_discovered(name)).collect();
    let new: Vec<Component<'_>> = new.iter().map(component).collect();
    let (mut old, mut new, mut out) = (&old[..], &new[..], Vec::new());
    // mostly much is the same; what is no file has a name of its own
    while let ([(was, before), old_rest @ ..], [(name, now), new_rest @ ..]) = (old, new)
        && was == name
        && (before == now || !name.contains(": "))
    {
        if before != now {
            out.push(Change::new(name, Some(before), Some(now)));
        }
        (old, new) = (old_rest, new_rest);
    }
    while let ([old_rest @ .., before], [new_rest @ .., now]) = (old, new)
        && before == now
    {
        (old, new) = (old_rest, new_rest);
    }
    let (old, new) = numbered(old, new);
    let before: HashMap<Place<'_>, &str> = old.iter().copied().collect();
    let now: HashMap<Place<'_>, &str> = new.iter().copied().collect();
    for (place, text) in &new {
        match before.get(place) {
            Some(old) if old == text => {}
            old => out.push(Change::new(place.0, old.copied(), Some(text))),
        }
    }
    for (place, text) in old.iter().filter(|(place, _)| !now.contains_key(place)) {
        out.push(Change::new(place.0, Some(text), None));
    }
    let new_order = order(&new, &before);
    for (group, old) in order(&old, &now) {
        let new = new_order.get(group);
        if new != Some(&old) {
            let names = |places: &Vec<Place<'_>>| places.iter().map(file).collect::<Vec<_>>().join("\n");
            let name = format!("order.{}", group.trim_start_matches("input."));
            out.push(Change::new(&name, Some(&names(&old)), new.map(names).as_deref()));
        }
    }
    out
}

/// A component: name and text.
type Component<'c> = (&'c str, &'c str);

fn component((name, text): &(String, String)) -> Component<'_> {
    (name, text)
}

/// A component's name, and which of that name it is.
type Place<'c> = (&'c str, usize);

/// The name of the file.
fn file<'c>((name, _): &Place<'c>) -> &'c str {
    name.split_once(": ").map_or(*name, |(_, file)| file)
}

/// Components that `other` has, too, by group.
fn order<'c>(
    all: &[(Place<'c>, &str)],
    other: &HashMap<Place<'_>, &str>,
) -> BTreeMap<&'c str, Vec<Place<'c>>> {
    let mut order: BTreeMap<&str, Vec<Place<'c>>> = BTreeMap::new();
    for (place, _) in all.iter().filter(|(place, _)| other.contains_key(place)) {
        order.entry(place.0.split_once(": ").map_or("", |(group, _)| group)).or_default().push(*place);
    }
    order
}

type Numbered<'c> = Vec<(Place<'c>, &'c str)>;

/// Both with their places: a new component has that of an old one with its name and text, else that of an old one with its name that
/// has none of the new ones, else one of its own.
fn numbered<'c>(old: &[Component<'c>], new: &[Component<'c>]) -> (Numbered<'c>, Numbered<'c>) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut same: HashMap<Component<'c>, VecDeque<usize>> = HashMap::new();
    let mut left: HashMap<&str, BTreeSet<usize>> = HashMap::new();
    let mut before = Vec::with_capacity(old.len());
    for (name, text) in old {
        let count = counts.entry(name).or_default();
        *count += 1;
        before.push(((*name, *count), *text));
        same.entry((name, text)).or_default().push_back(*count);
        left.entry(name).or_default().insert(*count);
    }
    let mut found = |component: &Component<'c>| {
        let place = same.get_mut(component)?.pop_front()?;
        left.get_mut(component.0)?.remove(&place);
        Some(place)
    };
    let found: Vec<Option<usize>> = new.iter().map(&mut found).collect();
    let place = |((name, text), found): (&Component<'c>, Option<usize>)| {
        let place = found.or_else(|| left.get_mut(name)?.pop_first()).unwrap_or_else(|| {
            let count = counts.entry(name).or_default();
            *count += 1;
            *count
        });
        ((*name, place), *text)
    };
    let now = new.iter().zip(found).map(place).collect();
    (before, now)
}

impl Change {
    fn new(component: &str, old: Option<&str>, new: Option<&str>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self { component: component.to_owned(), old: owned(old), new: owned(new) }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.component.split_once('.').unwrap_or((self.component.as_str(), ""));
        let verb = match (&self.old, &self.new) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        match kind {
            "input" => match name.split_once(": ") {
                Some((input, path)) if verb == "changed" => write!(f, "input {input} changed ({path})"),
                Some((input, path)) => write!(f, "input {input}: {path} {verb}"),
                None => write!(f, "input {name}: number of files {verb}"),
            },
            "order" => write!(f, "input {name}: order of files {verb}"),
            "discovered" if name.is_empty() => write!(f, "number of discovered inputs {verb}"),
            "discovered" => write!(f, "discovered input {name} {verb}"),
            "with" => write!(f, "parameter {name} {verb}"),
            "env" | "pass_env" => write!(f, "environment variable {name} {verb}"),
            "tool" => write!(f, "tool {name} {verb}"),
            "service" => write!(f, "service {name} {verb}"),
            "output" => write!(f, "declaration of output {name} {verb}"),
            "stage version" => write!(
                f,
                "stage version {} -> {}",
                self.old.as_deref().unwrap_or("none"),
                self.new.as_deref().unwrap_or("none")
            ),
            "format" => write!(f, "key format {verb} (another version of flow)"),
            _ => write!(f, "{} {verb}", self.component),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("never ran here"),
            Self::Equal(node) => write!(f, "never ran here, and {node} has the same key"),
            Self::Changed(changes) => {
                // the number of files says nothing that the files themselves do not
                let mut shown: Vec<&Change> = changes.iter().filter(|c| !is_count(c)).collect();
                if shown.is_empty() {
                    shown = changes.iter().collect();
                }
                let Some(first) = shown.first() else { return f.write_str("changed") };
                first.fmt(f)?;
                match shown.len() {
                    1 => Ok(()),
                    2 => write!(f, ", {}", shown[1]),
                    n => write!(f, " and {} more", n - 1),
                }
            }
            Self::ResultLost => f.write_str("its result is not in the cache"),
            Self::BytesLost(what) => write!(f, "cached bytes of {what} are missing or damaged"),
            Self::OutputMissing(path) => write!(f, "output {path} is missing"),
            Self::OutputChanged(path) => write!(f, "output {path} was changed"),
            Self::Never => f.write_str("runs every time (policy never)"),
            Self::Forced => f.write_str("forced"),
            Self::Remeasured => f.write_str("measured again (--remeasure)"),
            Self::NoCache => f.write_str("cache not read (--no-cache)"),
            Self::Check => f.write_str("asked whether it changed"),
            Self::SourceChanged => f.write_str("it changed at its source"),
        }
    }
}

fn is_count(change: &Change) -> bool {
    change.component == "discovered"
        || change.component.starts_with("input.") && !change.component.contains(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn components(list: &[(&str, &str)]) -> Components {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_kind_of_change_has_its_wording() {
        let old = components(&[
            ("format", "1"),
            ("stage version", "1"),
            ("with.on", "[1]"),
            ("env.A", "\"x\""),
            ("pass_env.B", "unset"),
            ("tool.gcc", "b3:1"),
            ("service.db", "b3:1"),
            ("output.csv", "file"),
            ("command", "a"),
            ("depfile", "a.d"),
            ("discovered", "2"),
            ("discovered.inc/a.h", "file b3:1"),
            ("discovered.inc/b.h", "file b3:1"),
            ("input.left", "one 1"),
            ("input.left: a.csv", "file b3:1"),
            ("input.all: gone.csv", "file b3:1"),
        ]);
        let new = components(&[
            ("format", "2"),
            ("stage version", "2"),
            ("with.on", "[2]"),
            ("with.new", "1"),
            ("env.A", "\"y\""),
            ("pass_env.B", "= 1"),
            ("tool.gcc", "b3:2"),
            ("service.db", "b3:2"),
            ("output.csv", "directory"),
            ("command", "b"),
            ("depfile", "b.d"),
            ("discovered", "3"),
            ("discovered.inc/a.h", "file b3:2"),
            ("discovered.inc/c.h", "file b3:1"),
            ("input.left", "one 2"),
            ("input.left: a.csv", "file b3:2"),
        ]);
        let text: Vec<String> = changes(&old, &new).iter().map(ToString::to_string).collect();
        expect![[r#"
            key format changed (another version of flow)
            stage version 1 -> 2
            parameter on changed
            parameter new added
            environment variable A changed
            environment variable B changed
            tool gcc changed
            service db changed
            declaration of output csv changed
            command changed
            depfile changed
            number of discovered inputs changed
            discovered input inc/a.h changed
            discovered input inc/c.h added
            input left: number of files changed
            input left changed (a.csv)
            discovered input inc/b.h removed
            input all: gone.csv removed"#]]
        .assert_eq(&text.join("\n"));
        assert!(changes(&new, &new).is_empty());
    }

    #[test]
    fn order_and_repeated_names_are_seen() {
        let files = |list: &[(&str, &str)]| {
            let list: Vec<_> =
                list.iter().map(|(k, v)| (format!("input.in: {k}"), (*v).to_owned())).collect();
            [vec![("input.in".to_owned(), "list 2".to_owned())], list].concat()
        };
        let text = |old: &[(&str, &str)], new: &[(&str, &str)]| -> Vec<String> {
            changes(&files(old), &files(new)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            text(&[("a", "1"), ("b", "2")], &[("b", "2"), ("a", "1")]),
            ["input in: order of files changed"]
        );
        assert_eq!(text(&[("f", "1"), ("f", "2")], &[("f", "2"), ("f", "2")]), ["input in changed (f)"]);
        assert_eq!(text(&[("f", "1"), ("f", "2")], &[("f", "1")]), ["input in: f removed"]);
        let three = [("f", "1"), ("f", "2"), ("f", "3")];
        assert_eq!(text(&three, &[("f", "1"), ("f", "9"), ("f", "2"), ("f", "3")]), ["input in: f added"]);
        assert_eq!(
            text(&three, &[("f", "3"), ("f", "1")]),
            ["input in: f removed", "input in: order of files changed"]
        );
        assert_eq!(
            text(&three, &[("f", "3"), ("f", "8"), ("f", "1"), ("f", "9")])[..2],
            ["input in changed (f)", "input in: f added"]
        );
        assert_eq!(text(&three, &[("f", "2"), ("f", "1"), ("f", "3")]), ["input in: order of files changed"]);
        assert_eq!(
            text(&[("a", "1"), ("b", "2")], &[("a", "1"), ("c", "3"), ("b", "2")]),
            ["input in: c added"]
        );
    }

    proptest! {
        /// Nothing is different only where nothing differs, and what came and went says how many there are.
        #[test]
        fn as_many_as_there_are(
            old in prop::collection::vec(("input.[ab]: [fg]", "[12]"), 0..7),
            new in prop::collection::vec(("input.[ab]: [fg]", "[12]"), 0..7),
        ) {
            let found = changes(&old, &new);
            prop_assert_eq!(found.is_empty(), groups(&old) == groups(&new), "{:?}", found);
            let files = |change: &&Change| !change.component.starts_with("order.");
            let came = found.iter().filter(files).filter(|change| change.old.is_none()).count();
            let went = found.iter().filter(files).filter(|change| change.new.is_none()).count();
            prop_assert_eq!(old.len() + came, new.len() + went);
            // nobody is told of more than has to be: what both have is in no change
            let mut rest = new.clone();
            let common = old.iter().filter(|c| rest.iter().position(|r| r == *c).map(|at| rest.remove(at)).is_some()).count();
            let told = found.iter().filter(files).filter(|change| change.new.is_some()).count();
            prop_assert_eq!(told, new.len() - common);
        }
    }

    /// The order among the files of one input is all that counts.
    fn groups(all: &Components) -> BTreeMap<&str, Vec<(&str, &str)>> {
        let mut groups: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for (name, text) in all {
            groups.entry(name.split_once(": ").unwrap().0).or_default().push((name, text));
        }
        groups
    }

    #[test]
    fn every_reason_has_its_wording() {
        let change = |name: &str| Change {
            component: name.to_owned(),
            old: Some("1".to_owned()),
            new: Some("2".to_owned()),
        };
        let reasons = [
            Reason::NeverRan,
            Reason::Equal("b".to_owned()),
            Reason::Changed(vec![change("input.left"), change("input.left: a.csv")]),
            Reason::Changed(vec![change("with.a"), change("with.b")]),
            Reason::Changed(vec![change("with.a"), change("with.b"), change("env.c")]),
            Reason::ResultLost,
            Reason::BytesLost("out/a".to_owned()),
            Reason::OutputMissing("out/a".to_owned()),
            Reason::OutputChanged("out/a".to_owned()),
            Reason::Never,
            Reason::Forced,
            Reason::Remeasured,
            Reason::NoCache,
            Reason::Check,
            Reason::SourceChanged,
        ];
        let text: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        expect![[r#"
            never ran here
            never ran here, and b has the same key
            input left changed (a.csv)
            parameter a changed, parameter b changed
            parameter a changed and 2 more
            its result is not in the cache
            cached bytes of out/a are missing or damaged
            output out/a is missing
            output out/a was changed
            runs every time (policy never)
            forced
            measured again (--remeasure)
            cache not read (--no-cache)
            asked whether it changed
            it changed at its source"#]]
        .assert_eq(&text.join("\n"));
    }
}
