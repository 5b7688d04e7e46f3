//! Combinations of a matrix: axes, include, exclude, repeats. Unaware of where the values come from.

use indexmap::IndexMap;

use super::Value;
use crate::base::canonical;

/// One value of an axis or variable, with its place in the axis's list.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) value: Value,
    /// Text form, as in node ids.
    pub(super) text: String,
    /// From 1.
    pub(super) index: usize,
    /// For values from a glob: the part after the pattern's fixed directory.
    pub(super) rel: Option<String>,
}

/// One combination: axes in order, then added variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Combo {
    pub(super) axes: IndexMap<String, Cell>,
    pub(super) vars: IndexMap<String, Cell>,
}

impl Combo {
    pub(super) fn get(&self, name: &str) -> Option<&Cell> {
        self.axes.get(name).or_else(|| self.vars.get(name))
    }

    /// An axis or variable whose value has a `..` in it, and the value.
    pub(super) fn climbs(&self) -> Option<(&str, &str)> {
        let mut all = self.axes.iter().chain(&self.vars);
        all.find_map(|(name, cell)| {
            cell.text.split('/').any(|part| part == "..").then_some((name.as_str(), cell.text.as_str()))
        })
    }

    /// `model=x,kind=e2e`
    pub(super) fn label(&self) -> String {
        let parts: Vec<String> =
            self.axes.iter().map(|(axis, cell)| format!("{axis}={}", shown(&cell.text))).collect();
        parts.join(",")
    }
}

/// A value in an id: plain if it is of `[A-Za-z0-9._-]`, else a JSON string.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

impl Cell {
    pub(super) fn new(value: Value, index: usize) -> Self {
        let text = match &value {
            Value::Text(text) => text.known().unwrap_or_default(),
            other => canonical::to_string(&other.identity()),
        };
        Self { value, text, index, rel: None }
    }
}

/// All combinations in row-major order of the axes as declared.
pub(super) fn product(axes: &IndexMap<String, Vec<Cell>>) -> Vec<Combo> {
    let mut combos = vec![Combo::default()];
    for (axis, cells) in axes {
        combos = combos
            .into_iter()
            .flat_map(|combo| {
                cells.iter().map(move |cell| {
                    let mut next = combo.clone();
                    next.axes.insert(axis.clone(), cell.clone());
                    next
                })
            })
            .collect();
    }
    combos
}

/// Removes the combinations that agree with every key of an entry.
pub(super) fn exclude(combos: &mut Vec<Combo>, entries: &[Vec<(String, Value)>]) -> Result<(), String> {
    for entry in entries {
        if let Some((key, _)) = entry.iter().find(|(key, _)| combos.iter().all(|c| c.get(key).is_none())) {
            if combos.is_empty() {
                continue;
            }
            return Err(format!("exclude names '{key}', which is no axis of this matrix"));
        }
        combos.retain(|combo| {
            !entry.iter().all(|(key, value)| combo.get(key).is_some_and(|cell| cell.value == *value))
        });
    }
    Ok(())
}

/// Adds combinations or variables, as GitHub Actions does: an entry whose axis values agree with existing combinations adds its
/// other keys to them; one that agrees with none is a combination of its own and must give every axis.
pub(super) fn include(
    combos: &mut Vec<Combo>,
    axes: &[String],
    entries: &[Vec<(String, Value)>],
) -> Result<(), String> {
    if axes.is_empty() {
        let names: Vec<&String> =
            entries.first().map(|entry| entry.iter().map(|(key, _)| key).collect()).unwrap_or_default();
        combos.clear();
        for (index, entry) in entries.iter().enumerate() {
            let mut combo = Combo::default();
            for name in &names {
                let (_, value) = entry.iter().find(|(key, _)| key == *name).ok_or_else(|| {
                    format!("include entry {} lacks '{name}', which the first entry gives", index + 1)
                })?;
                combo.axes.insert((*name).clone(), Cell::new(value.clone(), 0));
            }
            if let Some((key, _)) = entry.iter().find(|(key, _)| !names.contains(&key)) {
                return Err(format!(
                    "include entry {} gives '{key}', which the first entry lacks",
                    index + 1
                ));
            }
            combos.push(combo);
        }
        // an axis's index is the place of its value among the distinct values, by first appearance
        for name in names {
            let mut seen: Vec<Value> = Vec::new();
            for combo in combos.iter_mut() {
                if let Some(cell) = combo.axes.get_mut(name) {
                    let place = seen.iter().position(|v| *v == cell.value).unwrap_or_else(|| {
                        seen.push(cell.value.clone());
                        seen.len() - 1
                    });
                    cell.index = place + 1;
                }
            }
        }
        return Ok(());
    }
    let original = combos.len();
    for (index, entry) in entries.iter().enumerate() {
        let (given, added): (Vec<_>, Vec<_>) = entry.iter().partition(|(key, _)| axes.contains(key));
        let mut agreed = false;
        for combo in combos.iter_mut().take(original) {
            if given.iter().all(|(key, value)| combo.axes[key].value == *value) {
                agreed = true;
                for (key, value) in &added {
                    combo.vars.insert(key.clone(), Cell::new(value.clone(), index + 1));
                }
            }
        }
        if agreed {
            continue;
        }
        if given.len() < axes.len() {
            let missing: Vec<&str> = axes
                .iter()
                .filter(|axis| !given.iter().any(|(key, _)| key == *axis))
                .map(String::as_str)
                .collect();
            return Err(format!(
                "include entry {} agrees with no combination and does not give every axis (missing: {})",
                index + 1,
                missing.join(", ")
            ));
        }
        let mut combo = Combo::default();
        for axis in axes {
            let (_, value) = given.iter().find(|(key, _)| key == axis).ok_or("axis vanished")?;
            let known = combos.iter().find(|c| c.axes[axis].value == *value).map(|c| c.axes[axis].index);
            let next = combos.iter().map(|c| c.axes[axis].index).max().unwrap_or(0) + 1;
            combo.axes.insert(axis.clone(), Cell::new(value.clone(), known.unwrap_or(next)));
        }
        for (key, value) in &added {
            combo.vars.insert(key.clone(), Cell::new(value.clone(), index + 1));
        }
        combos.push(combo);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(list: &[(&str, &[&str])]) -> IndexMap<String, Vec<Cell>> {
        list.iter()
            .map(|(axis, values)| {
                let cells =
                    values.iter().enumerate().map(|(i, v)| Cell::new(Value::text(*v), i + 1)).collect();
                ((*axis).to_owned(), cells)
            })
            .collect()
    }

    fn entry(pairs: &[(&str, &str)]) -> Vec<(String, Value)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::text(*v))).collect()
    }

    #[test]
    fn include_adds_variables_or_combinations() {
        let axes = axes(&[("fruit", &["apple", "pear"]), ("animal", &["cat", "dog"])]);
        let names: Vec<String> = axes.keys().cloned().collect();
        let mut combos = product(&axes);
        include(
            &mut combos,
            &names,
            &[
                entry(&[("color", "green")]),
                entry(&[("color", "pink"), ("animal", "cat")]),
                entry(&[("fruit", "banana"), ("animal", "cat")]),
            ],
        )
        .unwrap();
        let shown: Vec<String> = combos
            .iter()
            .map(|c| format!("{} {}", c.label(), c.vars.get("color").map_or("-", |v| &v.text)))
            .collect();
        assert_eq!(
            shown,
            [
                "fruit=apple,animal=cat pink",
                "fruit=apple,animal=dog green",
                "fruit=pear,animal=cat pink",
                "fruit=pear,animal=dog green",
                "fruit=banana,animal=cat -",
            ]
        );
        assert!(include(&mut combos, &names, &[entry(&[("fruit", "kiwi")])]).unwrap_err().contains("animal"));
    }

    #[test]
    fn exclude_removes_partial_matches_and_refuses_strangers() {
        let mut combos = product(&axes(&[("a", &["1", "2"]), ("b", &["x", "y"])]));
        exclude(&mut combos, &[entry(&[("a", "1"), ("b", "x")]), entry(&[("b", "y")])]).unwrap();
        assert_eq!(combos.len(), 1);
        assert!(exclude(&mut combos, &[entry(&[("c", "1")])]).is_err());
    }
}
