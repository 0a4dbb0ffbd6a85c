# Copyright (C) nginx AI gateway authors

# Reads a request of OTLP in protobuf with the official classes, and tells its
# spans.

import sys

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

request = trace_service_pb2.ExportTraceServiceRequest()

with open(sys.argv[1], 'rb') as f:
    request.ParseFromString(f.read())

# there is nothing that they do not know

known = request.SerializeToString()
request.DiscardUnknownFields()
assert request.SerializeToString() == known

spans = [span for rs in request.resource_spans for ss in rs.scope_spans
         for span in ss.spans]

print(len(spans), 'spans')

for span in spans:
    assert len(span.trace_id) == 16 and len(span.span_id) == 8
    assert span.end_time_unix_nano >= span.start_time_unix_nano > 0

    kind = trace_pb2.Span.SpanKind.Name(span.kind)
    print(span.name, kind.replace('SPAN_KIND_', ''))
