//! `quaywatch schema`: the JSON Schemas, generated from the types that read and write.

use super::print;
use crate::cli::{SchemaArgs, SchemaOf};
use crate::exit::Exit;
use crate::wire;

/// Prints a JSON Schema.
///
/// # Errors
/// When it cannot be printed.
pub fn schema(args: &SchemaArgs) -> anyhow::Result<Exit> {
    print(&match args.of {
        SchemaOf::Event => wire::record_schema(),
        SchemaOf::Config => wire::config_schema(),
        SchemaOf::Doctor => wire::doctor_schema(),
        SchemaOf::Exposure => wire::exposure_schema(),
    })
}
