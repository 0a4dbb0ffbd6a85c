package AI::Otlp;

# Copyright (C) nginx AI gateway authors

# A strict reader of OTLP over HTTP in JSON, by the field names and types of
# opentelemetry-proto (trace/v1/trace.proto, common/v1/common.proto,
# resource/v1/resource.proto) and OTLP's JSON encoding: ids in hex, 64-bit
# integers as decimal strings, enums as numbers, no unknown field.
#
#     my @spans = AI::Otlp::spans($body);    # dies with what is wrong
#     $span->{attr}{'gen_ai.request.model'}

use strict;
use warnings;

use B ();
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
    my $json = JSON::PP->new->utf8->decode($body);
    my @spans;

    verify($json, 'request', '$');

    for my $rs (@{ $json->{resourceSpans} }) {
        my $resource = attributes($rs->{resource}{attributes}, 'resource');

        die "no service.name\n" if ($resource->{'service.name'} // '') eq '';

        for my $ss (@{ $rs->{scopeSpans} }) {
            for my $span (@{ $ss->{spans} }) {
                die "no name\n" if ($span->{name} // '') eq '';
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
