//! User and group names from `/etc/passwd` and `/etc/group`.
//!
//! Names from a directory service are not in these files; their numbers work everywhere a name does.

use crate::error::Error;
use crate::root::Root;

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `/etc/passwd`
    User,
    /// `/etc/group`
    Group,
}

impl Table {
    /// The number behind a name; a number stands for itself.
    ///
    /// # Errors
    /// [`Error::NoSuchName`], also when the table cannot be read.
    pub fn id(self, root: &Root, name: &str) -> Result<u32, Error> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        let text = root.text(self.file()).unwrap_or_default();
        let found = text.lines().filter_map(entry).find(|(entry, _)| *entry == name);
        found.map(|(_, id)| id).ok_or_else(|| Error::NoSuchName {
            kind: self.word(),
            name: name.to_owned(),
            file: self.file(),
        })
    }

    /// The name behind a number, or the number itself.
    pub fn name(self, root: &Root, id: u32) -> String {
        let text = root.text(self.file()).unwrap_or_default();
        let found = text.lines().filter_map(entry).find(|(_, entry)| *entry == id);
        found.map_or_else(|| id.to_string(), |(name, _)| name.to_owned())
    }

    fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// Name and number of a line such as `dpdk:x:107:alice`.
fn entry(line: &str) -> Option<(&str, u32)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((name, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_entry_are_passed_over() {
        assert_eq!(entry("dpdk:x:107:alice,bob"), Some(("dpdk", 107)));
        for line in ["", "::1", "+", "dpdk:x", "dpdk:x:-1:", "# comment"] {
            assert_eq!(entry(line), None, "{line}");
        }
    }

    #[test]
    fn numbers_need_no_table() {
        let root = Root::new("/nonexistent");
        assert_eq!(Table::Group.id(&root, "107").unwrap(), 107);
        assert_eq!(Table::User.name(&root, 12), "12");
        assert!(Table::Group.id(&root, "dpdk").is_err());
    }
}
