package AI::Otlp;

# Copyright (C) nginx AI gateway authors

# A strict reader of OTLP over HTTP, by the fields and types of
# opentelemetry-proto (collector/trace/v1/trace_service.proto,
# trace/v1/trace.proto, common/v1/common.proto, resource/v1/resource.proto): in
# protobuf, and in OTLP's JSON encoding: ids in hex, 64-bit integers as decimal
# strings, enums as numbers.  An unknown field is an error, and so are another
# wire type, a field that is there twice, and a string that is not UTF-8.
#
#     my @spans = AI::Otlp::spans($body);    # dies with what is wrong
#     AI::Otlp::encoding($body);             # "protobuf" or "json"
#     $span->{attr}{'gen_ai.request.model'}

use strict;
use warnings;

use B ();
use Cwd qw(abs_path);
use Encode ();
use File::Basename qw(dirname);
use File::Temp qw(tempfile);
use JSON::PP;

sub is_number {
    my ($value) = @_;
    my $flags = B::svref_2object(\$value)->FLAGS;

    return !ref $value && ($flags & (B::SVp_IOK | B::SVp_NOK))
           && !($flags & B::SVp_POK);
}

sub is_text { defined $_[0] && !ref $_[0] && !is_number($_[0]) }
sub is_bool { JSON::PP::is_bool($_[0]) }

my %check = (
    text => \&is_text,
    hex16 => sub { is_text($_[0]) && $_[0] =~ /^[0-9a-f]{32}$/
                   && $_[0] !~ /^0+$/ },
    hex8 => sub { is_text($_[0]) && $_[0] =~ /^[0-9a-f]{16}$/
                  && $_[0] !~ /^0+$/ },
    int64 => sub { is_text($_[0]) && $_[0] =~ /^-?[0-9]{1,19}$/ },
    uint32 => sub { is_number($_[0]) && $_[0] =~ /^[0-9]+$/ },
    double => \&is_number,
    bool => \&is_bool,
);

my %message = (
    request => { resourceSpans => [ 'resource_spans' ] },
    resource_spans => { resource => 'resource', schemaUrl => 'text',
                        scopeSpans => [ 'scope_spans' ] },
    resource => { attributes => [ 'key_value' ],
                  droppedAttributesCount => 'uint32' },
    scope_spans => { scope => 'scope', spans => [ 'span' ],
                     schemaUrl => 'text' },
    scope => { name => 'text', version => 'text',
               attributes => [ 'key_value' ],
               droppedAttributesCount => 'uint32' },
    span => { traceId => 'hex16', spanId => 'hex8', traceState => 'text',
              parentSpanId => 'hex8', flags => 'uint32', name => 'text',
              kind => 'uint32', startTimeUnixNano => 'int64',
              endTimeUnixNano => 'int64', attributes => [ 'key_value' ],
              droppedAttributesCount => 'uint32', events => [ 'event' ],
              droppedEventsCount => 'uint32', links => [ 'link' ],
              droppedLinksCount => 'uint32', status => 'status' },
    event => { timeUnixNano => 'int64', name => 'text',
               attributes => [ 'key_value' ],
               droppedAttributesCount => 'uint32' },
    link => { traceId => 'hex16', spanId => 'hex8', traceState => 'text',
              attributes => [ 'key_value' ], flags => 'uint32',
              droppedAttributesCount => 'uint32' },
    status => { message => 'text', code => 'uint32' },
    key_value => { key => 'text', value => 'any_value' },
    array_value => { values => [ 'any_value' ] },
    any_value => { stringValue => 'text', boolValue => 'bool',
                   intValue => 'int64', doubleValue => 'double',
                   arrayValue => 'array_value' },
);

# numbers of fields, their names as in JSON, and their types in protobuf

my %field = (
    request => { 1 => [ 'resourceSpans', 'resource_spans', 1 ] },
    resource_spans => { 1 => [ 'resource', 'resource' ],
                        2 => [ 'scopeSpans', 'scope_spans', 1 ],
                        3 => [ 'schemaUrl', 'string' ] },
    resource => { 1 => [ 'attributes', 'key_value', 1 ],
                  2 => [ 'droppedAttributesCount', 'uint32' ] },
    scope_spans => { 1 => [ 'scope', 'scope' ], 2 => [ 'spans', 'span', 1 ],
                     3 => [ 'schemaUrl', 'string' ] },
    scope => { 1 => [ 'name', 'string' ], 2 => [ 'version', 'string' ],
               3 => [ 'attributes', 'key_value', 1 ],
               4 => [ 'droppedAttributesCount', 'uint32' ] },
    span => { 1 => [ 'traceId', 'id16' ], 2 => [ 'spanId', 'id8' ],
              3 => [ 'traceState', 'string' ], 4 => [ 'parentSpanId', 'id8' ],
              5 => [ 'name', 'string' ], 6 => [ 'kind', 'uint32' ],
              7 => [ 'startTimeUnixNano', 'fixed64' ],
              8 => [ 'endTimeUnixNano', 'fixed64' ],
              9 => [ 'attributes', 'key_value', 1 ],
              10 => [ 'droppedAttributesCount', 'uint32' ],
              11 => [ 'events', 'event', 1 ],
              12 => [ 'droppedEventsCount', 'uint32' ],
              13 => [ 'links', 'link', 1 ],
              14 => [ 'droppedLinksCount', 'uint32' ],
              15 => [ 'status', 'status' ], 16 => [ 'flags', 'fixed32' ] },
    event => { 1 => [ 'timeUnixNano', 'fixed64' ], 2 => [ 'name', 'string' ],
               3 => [ 'attributes', 'key_value', 1 ],
               4 => [ 'droppedAttributesCount', 'uint32' ] },
    link => { 1 => [ 'traceId', 'id16' ], 2 => [ 'spanId', 'id8' ],
              3 => [ 'traceState', 'string' ],
              4 => [ 'attributes', 'key_value', 1 ],
              5 => [ 'droppedAttributesCount', 'uint32' ],
              6 => [ 'flags', 'fixed32' ] },
    status => { 2 => [ 'message', 'string' ], 3 => [ 'code', 'uint32' ] },
    key_value => { 1 => [ 'key', 'string' ], 2 => [ 'value', 'any_value' ] },
    array_value => { 1 => [ 'values', 'any_value', 1 ] },
    any_value => { 1 => [ 'stringValue', 'string' ],
                   2 => [ 'boolValue', 'bool' ], 3 => [ 'intValue', 'int64' ],
                   4 => [ 'doubleValue', 'double' ],
                   5 => [ 'arrayValue', 'array_value' ] },
);

my %wire = (uint32 => 0, int64 => 0, bool => 0, fixed64 => 1, double => 1,
            fixed32 => 5);

sub varint {
    my ($data, $at, $path) = @_;
    my ($n, $shift) = (0, 0);

    for ( ;; ) {
        die "$path: ends in a varint\n" if $$at >= length $$data;
        die "$path: varint of more than 10 bytes\n" if $shift > 63;

        my $byte = ord substr($$data, $$at++, 1);
        $n |= ($byte & 0x7f) << $shift;
        $shift += 7;

        return $n if $byte < 0x80;
    }
}

sub bytes {
    my ($data, $at, $n, $path) = @_;

    die "$path: $n bytes are more than there are\n"
        if $n > length($$data) - $$at;

    my $bytes = substr($$data, $$at, $n);
    $$at += $n;

    return $bytes;
}

# a field's value as JSON has it

sub scalar_value {
    my ($type, $n, $path) = @_;

    return unpack('d<', $n) if $type eq 'double';
    return '' . unpack('Q<', $n) if $type eq 'fixed64';
    return 0 + unpack('V', $n) if $type eq 'fixed32';
    return '' . unpack('q', pack('Q', $n)) if $type eq 'int64';

    if ($type eq 'bool') {
        die "$path: bool $n\n" if $n > 1;
        return $n ? JSON::PP::true : JSON::PP::false;
    }

    if ($type eq 'uint32') {
        die "$path: uint32 $n\n" if $n > 0xffffffff;
        return 0 + $n;
    }

    if ($type =~ /^id(\d+)/) {
        die "$path: id of " . length($n) . " bytes\n" if length $n != $1;
        return unpack('H*', $n);
    }

    return Encode::decode('UTF-8', $n, Encode::FB_CROAK);
}

sub message {
    my ($data, $type, $path) = @_;
    my ($at, %value) = (0);

    while ($at < length $data) {
        my $tag = varint(\$data, \$at, $path);
        my ($number, $wire) = ($tag >> 3, $tag & 7);
        my ($name, $of, $many) = @{ $field{$type}{$number}
            // die "$path: no field $number in $type\n" };
        my $here = "$path.$name";

        die "$here: wire type $wire\n" if $wire != ($wire{$of} // 2);
        die "$here: twice\n" if !$many && exists $value{$name};

        my $raw = $wire == 0 ? varint(\$data, \$at, $here)
                : bytes(\$data, \$at,
                        $wire == 1 ? 8 : $wire == 5 ? 4
                        : varint(\$data, \$at, $here), $here);

        my $value = $field{$of} ? message($raw, $of, $here)
                                : scalar_value($of, $raw, $here);

        if ($many) {
            push @{ $value{$name} }, $value;

        } else {
            $value{$name} = $value;
        }
    }

    return \%value;
}

# a Python that has the classes of opentelemetry-proto, and what they read

sub python {
    my $venv = abs_path(dirname(__FILE__) . '/../../..')
               . '/build/venv/bin/python';

    for my $python (grep { $_ eq 'python3' || -x $_ } $venv, 'python3') {
        return $python
            if system("$python -c 'import opentelemetry.proto.trace.v1"
                      . ".trace_pb2' 2>/dev/null") == 0;
    }

    return undef;
}

sub official {
    my ($python, $body) = @_;
    my ($fh, $name) = tempfile(UNLINK => 1);

    binmode $fh;
    print $fh $body;
    close $fh;

    my $script = abs_path(dirname(__FILE__) . '/../../sdk/py_otlp.py');

    return scalar qx($python $script $name 2>&1);
}

sub encoding { $_[0] =~ /^\{/ ? 'json' : 'protobuf' }

sub verify {
    my ($value, $type, $path) = @_;

    if (ref $type) {
        die "$path is no array\n" if ref $value ne 'ARRAY';
        verify($value->[$_], $type->[0], "$path\[$_]") for 0 .. $#$value;
        return;
    }

    if ($check{$type}) {
        $check{$type}->($value)
            or die "$path is no $type: " . ($value // 'null') . "\n";
        return;
    }

    die "$path is no object\n" if ref $value ne 'HASH';

    for my $name (sort keys %$value) {
        my $field = $message{$type}{$name}
                    // die "$path: no field \"$name\" in $type\n";
        verify($value->{$name}, $field, "$path.$name");
    }

    die "$path has not one value\n"
        if $type eq 'any_value' && keys %$value != 1;
}

sub plain {
    my ($any) = @_;
    my ($type, $value) = %$any;

    return $type eq 'arrayValue' ? [ map { plain($_) } @{ $value->{values} } ]
         : $type eq 'boolValue' ? ($value ? 1 : 0) : $value;
}

sub attributes {
    my ($list, $path) = @_;
    my %attr;

    for my $kv (@{ $list // [] }) {
        die "$path: attribute without a key\n" if ($kv->{key} // '') eq '';
        die "$path: \"$kv->{key}\" twice\n" if exists $attr{$kv->{key}};
        $attr{$kv->{key}} = plain($kv->{value});
    }

    return \%attr;
}

sub spans {
    my ($body) = @_;
    my $json = encoding($body) eq 'json'
               ? JSON::PP->new->utf8->decode($body)
               : message($body, 'request', '$');
    my @spans;

    verify($json, 'request', '$');

    for my $rs (@{ $json->{resourceSpans} }) {
        my $resource = attributes($rs->{resource}{attributes}, 'resource');

        die "no service.name\n" if ($resource->{'service.name'} // '') eq '';

        for my $ss (@{ $rs->{scopeSpans} }) {
            for my $span (@{ $ss->{spans} }) {
                die "no $_\n" for grep { ($span->{$_} // '') eq '' }
                    qw(traceId spanId name kind startTimeUnixNano
                       endTimeUnixNano);
                die "kind $span->{kind}\n" if $span->{kind} !~ /^[1-5]$/;
                die "ends before it starts\n"
                    if $span->{endTimeUnixNano} < $span->{startTimeUnixNano};

                $span->{attr} = attributes($span->{attributes}, $span->{name});
                $span->{resource} = $resource;
                $_->{attr} = attributes($_->{attributes}, $_->{name})
                    for @{ $span->{events} // [] };

                push @spans, $span;
            }
        }
    }

    return @spans;
}

1;
