package AI::Keys;

# Copyright (C) nginx AI gateway authors

# Keys of the gateway's own form, and records of keys.json:
#
#     my $keys = AI::Keys->new;
#     my $alice = $keys->add('alice', tenant => 'acme', models => [ 'smart' ]);
#
#     AI::Gateway->new(files => { 'keys.json' => $keys->text }, ...);
#     $client->get('/v1/models', headers => $keys->bearer('alice'));
#
#     $keys->{record}{alice}{disabled} = JSON::PP::true;
#     $keys->put($gw);       # atomically, as nginx expects it

use strict;
use warnings;

use Compress::Raw::Zlib qw(crc32);
use Digest::SHA qw(hmac_sha256_hex sha256_hex);
use Exporter qw(import);
use JSON::PP;

our @EXPORT_OK = qw(key_text);

my @digits = (0 .. 9, 'A' .. 'Z', 'a' .. 'z');
my $count = 0;

# secret of ai_key_secret, or undef

sub new {
    my ($class, %arg) = @_;
    return bless { key => {}, record => {}, order => [], %arg }, $class;
}

# the text of a key: eight characters of an id and 31 of a secret

sub key_text {
    my ($env, $id, $secret) = @_;
    my $text = "aigw_${env}_$id$secret";
    my $n = crc32($text);
    my $crc = '';

    for (1 .. 6) {
        $crc = $digits[$n % 62] . $crc;
        $n = int($n / 62);
    }

    return $text . $crc;
}

# a key that nobody else has; a test's names are ids of records

sub fresh {
    my ($self) = @_;
    my $hex = sha256_hex(join ' ', 'key', $$, ++$count);

    return key_text('test', substr($hex, 0, 8), substr($hex, 8, 31));
}

sub hash {
    my ($self, $key) = @_;

    return defined $self->{secret}
           ? 'hmac-sha256:' . hmac_sha256_hex($key, $self->{secret})
           : 'sha256:' . sha256_hex($key);
}

# a record with these members, returns its key; key => a text of another form
# is that of a foreign key

sub add {
    my ($self, $id, %member) = @_;
    my $foreign = delete $member{key};
    my $key = $foreign // $self->fresh;

    $member{foreign} = JSON::PP::true if defined $foreign;

    $self->{key}{$id} = $key;
    $self->{record}{$id} = { id => $id, hash => $self->hash($key), %member };
    push @{ $self->{order} }, $id;

    return $key;
}

sub key { $_[0]{key}{$_[1]} // die "no key $_[1]" }

# headers of a request

sub bearer {
    my ($self, $id) = @_;
    return [ Authorization => 'Bearer ' . $self->key($id) ];
}

sub text {
    my ($self) = @_;
    my $json = JSON::PP->new->utf8->canonical;

    return join '', "[\n", join(",\n", map { $json->encode($_) }
                                       map { $self->{record}{$_} // () }
                                       @{ $self->{order} }), "\n]\n";
}

sub put {
    my ($self, $gw) = @_;

    $gw->write_file('keys.json.new', $self->text);
    rename $gw->dir . '/keys.json.new', $gw->dir . '/keys.json'
        or die "keys.json: $!";
}

1;
