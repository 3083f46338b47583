//! The kernel inside the compressed one: an ELF file with an entry for hypervisors (PVH), which QEMU starts without
//! firmware's boot loader and without the decompressor. In an emulated machine that one takes as long as the rest of a boot.
//!
//! The layout of the file is described in the kernel's Documentation/arch/x86/boot.rst.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command;

/// Magic numbers of compressed payloads, and who unpacks them.
const FORMATS: &[(&[u8], &str)] = &[(&[0x02, 0x21, 0x4c, 0x18], "lz4"), (&[0x28, 0xb5, 0x2f, 0xfd], "zstd")];
/// Where the number of sectors before the protected-mode code is said, less the first of them.
const SETUP_SECTORS: usize = 0x1f1;
const SECTOR: usize = 512;
/// Where the boot protocol puts its own magic number.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
/// Where offset and length of the payload are said; the offset counts from the protected-mode code.
const PAYLOAD: usize = 0x248;
/// Behind the compressed bytes the payload has their length when unpacked.
const LENGTH: usize = 4;

/// Unpacks a compressed kernel into a file.
///
/// # Errors
/// When it is of another layout or format, or what comes out is not as long as the file says.
pub fn unpack(vmlinuz: &Path, vmlinux: &Path) -> Result<()> {
    let bytes = fs::read(vmlinuz).with_context(|| format!("cannot read {}", vmlinuz.display()))?;
    let (program, packed, length) =
        payload(&bytes).with_context(|| format!("{} is no compressed kernel", vmlinuz.display()))?;
    let packed_file = vmlinux.with_extension("packed");
    fs::write(&packed_file, &bytes[packed])?;
    let partial = vmlinux.with_extension("partial");
    let mut unpack = command::program(program);
    unpack.args(["-d", "-c", "-q"]).arg(&packed_file).stdout(Stdio::from(File::create(&partial)?));
    command::check(&mut unpack)?;
    fs::remove_file(packed_file)?;
    let unpacked = fs::metadata(&partial)?.len();
    ensure!(unpacked == u64::from(length), "{program} made {unpacked} bytes of it, not {length}");
    Ok(fs::rename(partial, vmlinux)?)
}

/// Who unpacks the payload, where it lies, and how long it is then.
fn payload(bytes: &[u8]) -> Result<(&'static str, Range<usize>, u32)> {
    let (at, magic) = MAGIC;
    ensure!(bytes.get(at..at + magic.len()) == Some(magic), "no header of the boot protocol");
    let sectors = match bytes[SETUP_SECTORS] {
        // As the boot protocol has it.
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + word(bytes, PAYLOAD)? as usize;
    let end = start.checked_add(word(bytes, PAYLOAD + 4)? as usize).context("too long a payload")?;
    let packed = start..end.checked_sub(LENGTH).context("too short a payload")?;
    let Some(payload) = bytes.get(packed.clone()) else { bail!("the payload is cut off") };
    let format = FORMATS.iter().find(|(magic, _)| payload.starts_with(magic));
    let (_, program) = format.context("the payload is in none of the formats of Debian's kernels")?;
    Ok((program, packed, word(bytes, end - LENGTH)?))
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).context("it is cut off")?;
    Ok(u32::from_le_bytes(word.try_into().expect("invariant: four bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compressed kernel of one setup sector, whose payload has these bytes.
    fn image(payload: &[u8]) -> Vec<u8> {
        const BEFORE: usize = 2 * SECTOR;
        let mut image = vec![0; BEFORE + 16];
        image[SETUP_SECTORS] = 1;
        image[MAGIC.0..MAGIC.0 + 4].copy_from_slice(MAGIC.1);
        image[PAYLOAD..PAYLOAD + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn the_payload_is_found_with_its_format_and_length() {
        for (magic, program) in FORMATS {
            let bytes = image(&[*magic, b"packed", &7_u32.to_le_bytes()].concat());
            assert_eq!(payload(&bytes).expect("sound"), (*program, 1040..1050, 7));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let sound = image(&[FORMATS[0].0, b"packed", &[7, 0, 0, 0]].concat());
        assert!(payload(&sound).is_ok());
        for bytes in [&sound[..sound.len() - 1], &sound[..SECTOR], b"", &image(b"gzip....1234"), &image(b"")]
        {
            assert!(payload(bytes).is_err());
        }
    }
}
