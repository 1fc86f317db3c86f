//! Amounts of memory and page sizes, written the way people write them: `512M`, `2G`.
//!
//! All units are powers of 1024. A bare number is refused, because half of its readers would take it
//! for bytes and the other half for megabytes.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Most bytes any amount may name: what a 52-bit physical address can reach. Sums over
/// [`crate::inventory::NODES_MAX`] nodes therefore fit a `u64`.
pub const BYTES_MAX: u64 = 1 << 52;

/// Smallest and largest page the kernel offers on any architecture, in KiB (16 KiB to 16 GiB).
const PAGE_KIB: std::ops::RangeInclusive<u64> = 16..=16 << 20;

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// An amount of memory in bytes, at most [`BYTES_MAX`] when parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(u64);

/// The size of one hugepage: a power of two, kept in KiB as the kernel names its directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageSize {
    kib: u64,
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// No digits, a sign, a fraction or an unknown unit.
    #[error("write a whole number and a unit, such as 512M or 2G")]
    NotASize,
    /// Digits without a unit.
    #[error("add a unit: {0}M or {0}G")]
    NoUnit(u64),
    /// More than [`BYTES_MAX`].
    #[error("more memory than any machine can address")]
    TooLarge,
    /// A page must be a power of two within the kernel's range.
    #[error("no kernel has pages of this size; 2M and 1G are the usual ones")]
    NotAPage,
}

impl Size {
    /// An amount in bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// An amount in KiB, the unit of procfs; saturates.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1024))
    }

    /// The amount in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl PageSize {
    /// The page every x86-64 and most ARM kernels have.
    pub const TWO_MIB: Self = Self { kib: 2 << 10 };
    /// The page that needs the `pdpe1gb` CPU flag on x86-64.
    pub const ONE_GIB: Self = Self { kib: 1 << 20 };

    /// A page of `kib` KiB, if the kernel could have one.
    pub fn from_kib(kib: u64) -> Option<Self> {
        (PAGE_KIB.contains(&kib) && kib.is_power_of_two()).then_some(Self { kib })
    }

    /// Bytes of one page.
    pub const fn bytes(self) -> u64 {
        self.kib * 1024
    }

    /// Pages needed to hold `size`, rounded up.
    pub const fn pages_for(self, size: Size) -> u64 {
        size.0.div_ceil(self.bytes())
    }

    /// The memory `pages` of these make; saturates.
    pub const fn times(self, pages: u64) -> Size {
        Size(pages.saturating_mul(self.bytes()))
    }

    /// The kernel's directory for this size in sysfs, such as `hugepages-2048kB`.
    pub fn directory(self) -> String {
        format!("hugepages-{}kB", self.kib)
    }

    /// The size a sysfs directory is for.
    pub fn from_directory(name: &str) -> Option<Self> {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        Self::from_kib(kib.parse().ok()?)
    }

    /// The size in the names of cgroup files, such as `2MB` in `hugetlb.2MB.max`.
    pub fn cgroup_name(self) -> String {
        format!("{self}B")
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = match number.parse() {
            Ok(number) => number,
            Err(_) if digits > 0 => return Err(SizeError::TooLarge),
            Err(_) => return Err(SizeError::NotASize),
        };
        let unit = unit.to_ascii_uppercase();
        if unit.is_empty() {
            return Err(SizeError::NoUnit(number));
        }
        let shift = UNITS
            .iter()
            .find(|(letter, _)| {
                unit.strip_prefix(*letter).is_some_and(|rest| matches!(rest, "" | "B" | "IB"))
            })
            .map(|(_, shift)| *shift)
            .ok_or(SizeError::NotASize)?;
        match number.checked_mul(1 << shift) {
            Some(bytes) if bytes <= BYTES_MAX => Ok(Self(bytes)),
            _ => Err(SizeError::TooLarge),
        }
    }
}

impl FromStr for PageSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let size: Size = text.parse()?;
        Self::from_kib(size.0 / 1024)
            .filter(|page| page.bytes() == size.0)
            .ok_or(SizeError::NotAPage)
    }
}

/// Exact amounts print without a fraction (`64M`), others with one digit (`1.5G`).
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0);
        let text = match fitting {
            None => format!("{}", self.0),
            Some((letter, shift)) if self.0.is_multiple_of(1 << shift) => {
                format!("{}{letter}", self.0 >> shift)
            }
            Some((letter, shift)) => {
                let tenths = (u128::from(self.0) * 10) >> shift;
                format!("{}.{}{letter}", tenths / 10, tenths % 10)
            }
        };
        f.pad(&text)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Size(self.bytes()).fmt(f)
    }
}

/// JSON carries bytes; the field's name ends in `_bytes`.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// JSON carries bytes; the field's name ends in `_bytes`.
impl Serialize for PageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("2G", 2 << 30), ("512m", 512 << 20), ("64KiB", 64 << 10), ("1TB", 1 << 40)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_the_unit_to_add() {
        let error = "512".parse::<Size>().unwrap_err();
        assert_eq!(error.to_string(), "add a unit: 512M or 512G");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "G", "-1G", "1.5G", "1X", "1Gi", "1GG", "１G"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::NotASize), "{text}");
        }
        for text in ["99999999999999999999G", "18446744073709551615K", "5000T"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge), "{text}");
        }
    }

    #[test]
    fn pages_are_powers_of_two() {
        assert_eq!("1G".parse(), Ok(PageSize::ONE_GIB));
        assert_eq!("1024M".parse(), Ok(PageSize::ONE_GIB));
        assert_eq!("3M".parse::<PageSize>(), Err(SizeError::NotAPage));
        assert_eq!("4K".parse::<PageSize>(), Err(SizeError::NotAPage));
    }

    #[test]
    fn a_fraction_shows_one_digit() {
        assert_eq!(Size(3 << 29).to_string(), "1.5G");
        assert_eq!(Size(1023).to_string(), "1023");
        assert_eq!(Size(0).to_string(), "0");
        assert_eq!(Size(u64::MAX).to_string(), "16777215.9T");
    }

    #[test]
    fn kernel_names_go_both_ways() {
        assert_eq!(PageSize::TWO_MIB.directory(), "hugepages-2048kB");
        assert_eq!(PageSize::from_directory("hugepages-1048576kB"), Some(PageSize::ONE_GIB));
        assert_eq!(PageSize::from_directory("hugepages-18446744073709551615kB"), None);
        assert_eq!(PageSize::ONE_GIB.cgroup_name(), "1GB");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,30}") {
            if let Ok(size) = text.parse::<Size>() {
                prop_assert!(size.bytes() <= BYTES_MAX);
            }
        }

        #[test]
        fn exact_sizes_survive_print_and_parse(number in 1u64..1024, unit in 0usize..4) {
            let size = Size(number << UNITS[unit].1);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
