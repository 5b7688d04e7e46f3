//! Devices as a workflow or a command line names them. Unaware of what the machine has.

/// Which devices a run may lease, as written: `gpu:8`, `gpu:auto`, `gpu:0,2,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// So many virtual ones: for tests, and for machines that have none.
    Virtual(u32),
    /// All that this process may see.
    Auto,
    /// These of them, each by its index or the begin of its UUID.
    Listed(Vec<String>),
}

impl DeviceSpec {
    /// How it is written.
    pub const FORMS: &str = "write \"gpu:8\" (eight virtual ones), \"gpu:auto\" (what the machine has) or \"gpu:0,2,3\" (these of it; one alone is \"gpu:0,\")";
    /// Virtual devices at most.
    const MOST: u32 = 1024;

    /// Reads one.
    ///
    /// # Errors
    /// It is no such text; the message says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(list) = text.strip_prefix("gpu:") else {
            return Err(format!("'{text}' names no devices"));
        };
        if list == "auto" {
            return Ok(Self::Auto);
        }
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(count) = number(list) {
            return match count {
                0 => Err(format!("'{text}' are no devices")),
                1..=Self::MOST => Ok(Self::Virtual(count)),
                _ => Err(format!("'{text}' are more than {} virtual devices", Self::MOST)),
            };
        }
        let names: Vec<String> =
            list.strip_suffix(',').unwrap_or(list).split(',').map(str::to_owned).collect();
        let is_name = |name: &String| {
            let is_uuid = ["GPU-", "MIG-"]
                .iter()
                .any(|begin| name.strip_prefix(begin).is_some_and(|rest| !rest.is_empty()));
            is_uuid || number(name).is_some()
        };
        if let Some(other) = names.iter().find(|name| !is_name(name)) {
            return Err(match other.as_str() {
                "" => format!("'{text}' names no devices"),
                other => format!(
                    "'{text}' names no devices: '{other}' is neither an index nor a UUID (GPU-..., MIG-...)"
                ),
            });
        }
        let again = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        match again {
            Some((_, name)) => Err(format!("'{text}' names device {name} twice")),
            None => Ok(Self::Listed(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_count_and_a_list_names_real_ones() {
        let listed =
            |names: &[&str]| DeviceSpec::Listed(names.iter().map(|name| (*name).to_owned()).collect());
        for (text, expected) in [
            ("gpu:8", DeviceSpec::Virtual(8)),
            ("gpu:auto", DeviceSpec::Auto),
            ("gpu:0,2,3", listed(&["0", "2", "3"])),
            ("gpu:3,", listed(&["3"])),
            ("gpu:GPU-12ab", listed(&["GPU-12ab"])),
            ("gpu:MIG-1,GPU-2", listed(&["MIG-1", "GPU-2"])),
        ] {
            assert_eq!(DeviceSpec::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "gpu", "gpu:", "gpu:,", "gpu:0", "gpu:-1", "gpu:all", "gpu:0,,1", "gpu:1,1", "gpu:+8",
            "gpu:0,+1", "gpu:GPU-", "cpu:2", "gpu:9999",
        ] {
            assert!(DeviceSpec::parse(text).is_err(), "{text}");
        }
    }
}
