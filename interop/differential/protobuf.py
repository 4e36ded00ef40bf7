"""Just enough of Kubernetes' protobuf to write a ConfigMap, a Namespace and DeleteOptions."""


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def envelope(version, kind, raw):
    return b"k8s\0" + field(1, field(1, version) + field(2, kind)) + field(2, raw)


def config_map(name, namespace, data):
    entries = b"".join(field(2, field(1, key) + field(2, value)) for key, value in data.items())
    return envelope("v1", "ConfigMap", field(1, field(1, name) + field(3, namespace)) + entries)


def namespace(name):
    return envelope("v1", "Namespace", field(1, field(1, name)))


def delete_options(grace_s, policy):
    return envelope("v1", "DeleteOptions", field(1, grace_s) + field(4, policy))
