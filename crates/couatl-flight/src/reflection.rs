//! What the server tells of its protocol to who asks for it, as grpcurl does: the Flight service and its messages, in the
//! form in which protobuf describes itself. arrow-flight's generated code does not keep it.

use couatl_core::{Error, Result};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use tonic_reflection::server::{Builder, v1, v1alpha};

/// `name:number:type`, where a type that is none of protobuf's is a message, `[]` many of it, and `!` an enum.
const MESSAGES: &[(&str, &[&str])] = &[
    ("HandshakeRequest", &["protocol_version:1:uint64", "payload:2:bytes"]),
    ("HandshakeResponse", &["protocol_version:1:uint64", "payload:2:bytes"]),
    ("BasicAuth", &["username:2:string", "password:3:string"]),
    ("Empty", &[]),
    ("ActionType", &["type:1:string", "description:2:string"]),
    ("Criteria", &["expression:1:bytes"]),
    ("Action", &["type:1:string", "body:2:bytes"]),
    ("Result", &["body:1:bytes"]),
    ("SchemaResult", &["schema:1:bytes"]),
    ("FlightDescriptor", &["type:1:!FlightDescriptor.DescriptorType", "cmd:2:bytes", "path:3:string[]"]),
    (
        "FlightInfo",
        &[
            "schema:1:bytes",
            "flight_descriptor:2:FlightDescriptor",
            "endpoint:3:FlightEndpoint[]",
            "total_records:4:int64",
            "total_bytes:5:int64",
            "ordered:6:bool",
            "app_metadata:7:bytes",
        ],
    ),
    (
        "PollInfo",
        &[
            "info:1:FlightInfo",
            "flight_descriptor:2:FlightDescriptor",
            "progress:3:double?",
            "expiration_time:4:google.protobuf.Timestamp",
        ],
    ),
    (
        "FlightEndpoint",
        &[
            "ticket:1:Ticket",
            "location:2:Location[]",
            "expiration_time:3:google.protobuf.Timestamp",
            "app_metadata:4:bytes",
        ],
    ),
    ("Location", &["uri:1:string"]),
    ("Ticket", &["ticket:1:bytes"]),
    (
        "FlightData",
        &[
            "flight_descriptor:1:FlightDescriptor",
            "data_header:2:bytes",
            "app_metadata:3:bytes",
            "data_body:1000:bytes",
        ],
    ),
    ("PutResult", &["app_metadata:1:bytes"]),
];

/// Each call, what it takes and what it gives; `[]` is a stream.
const CALLS: &[(&str, &str, &str)] = &[
    ("Handshake", "HandshakeRequest[]", "HandshakeResponse[]"),
    ("ListFlights", "Criteria", "FlightInfo[]"),
    ("GetFlightInfo", "FlightDescriptor", "FlightInfo"),
    ("PollFlightInfo", "FlightDescriptor", "PollInfo"),
    ("GetSchema", "FlightDescriptor", "SchemaResult"),
    ("DoGet", "Ticket", "FlightData[]"),
    ("DoPut", "FlightData[]", "PutResult[]"),
    ("DoExchange", "FlightData[]", "FlightData[]"),
    ("DoAction", "Action", "Result[]"),
    ("ListActions", "Empty", "ActionType[]"),
];

const PACKAGE: &str = "arrow.flight.protocol";

/// The service that tells of the others, in the two versions that clients speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reflection {
    /// Whether one of the others says how the server is.
    pub(crate) health: bool,
}

impl Reflection {
    fn builder<'b>(self) -> Builder<'b> {
        let builder =
            Builder::configure().register_file_descriptor_set(FileDescriptorSet { file: vec![timestamp(), flight()] });
        match self.health {
            true => builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET),
            false => builder,
        }
    }

    pub(crate) fn v1(self) -> Result<v1::ServerReflectionServer<impl v1::ServerReflection>> {
        self.builder().build_v1().map_err(undescribed)
    }

    pub(crate) fn v1alpha(self) -> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>> {
        self.builder().build_v1alpha().map_err(undescribed)
    }
}

fn undescribed(error: tonic_reflection::server::Error) -> Error {
    Error::internal(format!("the protocol cannot be described: {error}"))
}

fn flight() -> FileDescriptorProto {
    let (mut messages, mut methods) = (Vec::new(), Vec::new());
    for (name, fields) in MESSAGES {
        let mut message = message(name, fields);
        if *name == "FlightDescriptor" {
            message.enum_type.push(descriptor_types());
        }
        messages.push(message);
    }
    for (name, input, output) in CALLS {
        let whole = |name: &str| Some(format!(".{PACKAGE}.{}", name.trim_end_matches("[]")));
        methods.push(MethodDescriptorProto {
            name: Some((*name).to_owned()),
            input_type: whole(input),
            output_type: whole(output),
            client_streaming: Some(input.ends_with("[]")),
            server_streaming: Some(output.ends_with("[]")),
            ..MethodDescriptorProto::default()
        });
    }
    FileDescriptorProto {
        name: Some("Flight.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec!["google/protobuf/timestamp.proto".to_owned()],
        message_type: messages,
        service: vec![ServiceDescriptorProto {
            name: Some("FlightService".to_owned()),
            method: methods,
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    }
}

/// The one message of protobuf's own that Flight's hold.
fn timestamp() -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some("google/protobuf/timestamp.proto".to_owned()),
        package: Some("google.protobuf".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message("Timestamp", &["seconds:1:int64", "nanos:2:int32"])],
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, fields: &[&str]) -> DescriptorProto {
    let mut message = DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
    for spelled in fields {
        let mut parts = spelled.split(':');
        let (field, number, spelled) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
        let bare = spelled.trim_end_matches("[]").trim_end_matches('?');
        let (kind, whole) = match bare {
            "uint64" => (Type::Uint64, None),
            "int64" => (Type::Int64, None),
            "int32" => (Type::Int32, None),
            "bool" => (Type::Bool, None),
            "double" => (Type::Double, None),
            "string" => (Type::String, None),
            "bytes" => (Type::Bytes, None),
            other => match other.strip_prefix('!') {
                Some(other) => (Type::Enum, Some(format!(".{PACKAGE}.{other}"))),
                None if other.contains('.') => (Type::Message, Some(format!(".{other}"))),
                None => (Type::Message, Some(format!(".{PACKAGE}.{other}"))),
            },
        };
        let label = if spelled.ends_with("[]") { Label::Repeated } else { Label::Optional };
        // What may be left out is, in protobuf's own terms, the only member of a union.
        let mut oneof_index = None;
        if spelled.ends_with('?') {
            oneof_index = i32::try_from(message.oneof_decl.len()).ok();
            message.oneof_decl.push(prost_types::OneofDescriptorProto {
                name: field.map(|field| format!("_{field}")),
                ..prost_types::OneofDescriptorProto::default()
            });
        }
        message.field.push(FieldDescriptorProto {
            name: field.map(str::to_owned),
            number: number.and_then(|number| number.parse().ok()),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name: whole,
            proto3_optional: oneof_index.map(|_| true),
            oneof_index,
            ..FieldDescriptorProto::default()
        });
    }
    message
}

fn descriptor_types() -> EnumDescriptorProto {
    let values = ["UNKNOWN", "PATH", "CMD"].into_iter().zip(0..);
    let value = values.map(|(name, number)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        options: None,
    });
    EnumDescriptorProto {
        name: Some("DescriptorType".to_owned()),
        value: value.collect(),
        ..EnumDescriptorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_names_is_there() {
        let file = flight();
        let known: Vec<_> = file.message_type.iter().map(|message| format!(".{PACKAGE}.{}", message.name())).collect();
        let fields = file.message_type.iter().flat_map(|message| &message.field);
        let types = fields.filter(|field| field.r#type() == Type::Message).map(|field| field.type_name().to_owned());
        let methods = &file.service[0].method;
        let calls = methods.iter().flat_map(|call| [call.input_type().to_owned(), call.output_type().to_owned()]);
        let named: Vec<_> = types.chain(calls).filter(|name| name != ".google.protobuf.Timestamp").collect();
        assert!(named.len() > 20 && named.iter().all(|name| known.contains(name)), "{named:?}");
        assert!(file.message_type.iter().flat_map(|message| &message.field).all(|field| field.number() > 0));
        for health in [true, false] {
            let reflection = Reflection { health };
            assert!(reflection.v1().is_ok() && reflection.v1alpha().is_ok());
        }
    }
}
