//! Completes the instructions of the probes with what is known at load only, see [`sensor_common::placeholder`].

use sensor_common::offsets::Offsets;
use sensor_common::placeholder::{LEN, MAGIC, OFFSETS_LEN};
use sensor_common::settings::Settings;
use zerocopy::IntoBytes as _;

/// `dst = NUMBER ll`.
const LOAD_IMMEDIATE_64: u8 = 0x18;
/// Bytes of a BPF instruction; the immediate load takes two.
const INSTRUCTION: usize = 8;

/// Returns a copy of the object with every placeholder replaced. Words, because the loader needs the bytes aligned.
///
/// # Errors
/// When a placeholder asks for a constant that there is not, or when there are none at all: the object and the agent were
/// not built together.
pub(super) fn complete(object: &[u8], offsets: &Offsets, settings: &Settings) -> Result<Vec<u64>, Mismatch> {
    let mut constants = [0; LEN];
    constants[..OFFSETS_LEN].copy_from_slice(&offsets.words());
    constants[OFFSETS_LEN..].copy_from_slice(&settings.words());

    let mut words = vec![0_u64; object.len().div_ceil(8)];
    let bytes = words.as_mut_bytes();
    bytes[..object.len()].copy_from_slice(object);
    let mut replaced = 0;
    // Sections of instructions are aligned to instructions.
    for at in (0..bytes.len().saturating_sub(INSTRUCTION)).step_by(INSTRUCTION) {
        let Some(number) = placeholder(&bytes[at..at + 2 * INSTRUCTION]) else { continue };
        let constant = constants.get(number as usize).ok_or(Mismatch::Unknown(number))?;
        bytes[at + 4..at + 8].copy_from_slice(&constant.to_ne_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&0_u32.to_ne_bytes());
        replaced += 1;
    }
    if replaced == 0 { Err(Mismatch::None) } else { Ok(words) }
}

/// Returns which constant a pair of instructions asks for, if it is a placeholder.
fn placeholder(pair: &[u8]) -> Option<u32> {
    let word = |at: usize| u32::from_ne_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
    let is_load = pair[0] == LOAD_IMMEDIATE_64 && pair[2..4] == [0, 0] && pair[8..12] == [0, 0, 0, 0];
    (is_load && word(12) == MAGIC).then(|| word(4))
}

/// Why the object does not fit this agent.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mismatch {
    /// A constant that this agent does not know.
    #[error("the probes ask for the unknown constant {0}")]
    Unknown(u32),
    /// The probes ask for nothing.
    #[error("the probes ask for no constant at all")]
    None,
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::placeholder::{of_offset, of_setting};

    fn load(number: u64) -> Vec<u8> {
        let [low, high] = [number as u32, (number >> 32) as u32].map(u32::to_ne_bytes);
        [&[LOAD_IMMEDIATE_64, 3, 0, 0][..], &low, &[0; 4], &high].concat()
    }

    fn settings() -> Settings {
        Settings { args_max: 77, ..Settings::DEFAULT }
    }

    #[test]
    fn placeholders_become_constants_and_nothing_else_changes() {
        let offsets = Offsets { sk_num: 14, ..Offsets::NONE };
        let other = load(0x1234_5678_0000_0001);
        let object = [
            vec![0xff; 8],
            load(of_offset(std::mem::offset_of!(Offsets, sk_num))),
            other.clone(),
            load(of_setting(std::mem::offset_of!(Settings, args_max))),
            vec![0x18],
        ]
        .concat();
        let words = complete(&object, &offsets, &settings()).expect("sound");
        let expected = [vec![0xff; 8], load(14), other, load(77), vec![0x18, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(words.as_bytes(), expected);
    }

    #[test]
    fn an_object_of_another_version_is_refused() {
        let unknown = load(u64::from(MAGIC) << 32 | LEN as u64);
        assert_eq!(complete(&unknown, &Offsets::NONE, &settings()), Err(Mismatch::Unknown(LEN as u32)));
        assert_eq!(complete(&[0; 64], &Offsets::NONE, &settings()), Err(Mismatch::None));
        assert_eq!(complete(&[], &Offsets::NONE, &settings()), Err(Mismatch::None));
    }
}
