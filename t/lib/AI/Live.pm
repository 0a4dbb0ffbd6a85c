package AI::Live;

# Copyright (C) nginx AI gateway authors

# Keys of the gateway and their records, computed here from the description of
# the form, not with the code that is tested; and a gateway that tells whose
# key it got and which worker has answered.
#
#     my $key = key(1);                       # always the same for a number
#     my $record = record(1, tenant => 'acme');
#     my $gw = keys_gateway(data => { 'keys.json' => json([ $record ]) });
#     my $r = ask($gw, $key);                 # [ status, key id, pid ]

use strict;
use warnings;

use Digest::SHA qw(sha256_hex hmac_sha256_hex);
use Exporter qw(import);
use IO::Socket::INET;
use JSON::PP;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time sleep);

use AI::Gateway;

our @EXPORT = qw(key key_of hash_of record json lines keys_conf keys_gateway
                 ask status_of within);

my @crc_table = map {
    my $c = $_;
    $c = $c & 1 ? ($c >> 1) ^ 0xedb88320 : $c >> 1 for 1 .. 8;
    $c;
} 0 .. 255;

my @digits = (0 .. 9, 'A' .. 'Z', 'a' .. 'z');

sub crc32 {
    my $crc = 0xffffffff;

    $crc = $crc_table[($crc ^ $_) & 255] ^ ($crc >> 8)
        for unpack 'C*', $_[0];

    return $crc ^ 0xffffffff;
}

sub base62 {
    my ($n, $len) = @_;
    my $text = '';

    for (1 .. $len) {
        $text = $digits[$n % 62] . $text;
        $n = int($n / 62);
    }

    return $text;
}

# a key of these parts, with its checksum

sub key_of {
    my ($env, $id, $secret) = @_;
    my $key = "aigw_${env}_$id$secret";

    return $key . base62(crc32($key), 6);
}

sub id_of { 'k_' . base62(1000 + $_[0], 8) }

sub key {
    my ($n, $env) = @_;
    return key_of($env // 'test', base62(1000 + $n, 8),
                  substr(sha256_hex("secret $n"), 0, 31));
}

sub hash_of {
    my ($key, $secret) = @_;

    return defined $secret ? 'hmac-sha256:' . hmac_sha256_hex($key, $secret)
                           : 'sha256:' . sha256_hex($key);
}

sub record {
    my ($n, %more) = @_;
    my %record = (id => id_of($n), hash => hash_of(key($n)), %more);

    delete $record{$_} for grep { !defined $record{$_} } keys %record;

    return \%record;
}

my $coder = JSON::PP->new->utf8->canonical;

sub json { return $coder->encode($_[0]) . "\n" }

sub lines { return join '', map { $coder->encode($_) . "\n" } @_ }

# /who needs a key, /status does not

sub keys_conf {
    my (%opt) = @_;
    my ($http, $data) = ($opt{http} // '', $opt{ai_data} // '%%DIR%%/data');

    return <<"END";
events {
}

http {
    ai_data $data;
    $http

    server {
        listen 127.0.0.1:%%PORT_0%% reuseport;

        keepalive_requests 1000000;

        location = /who {
            ai_auth key;
            root %%DIR%%;
            add_header X-Key "\$ai_key_id" always;
            add_header X-Pid \$pid always;
            add_header X-Generation \$ai_data_keys_generation always;
            $opt{who}
        }

        location = /status {
            return 200 "state=\$ai_data_keys gen=\$ai_data_keys_generation records=\$ai_data_keys_records failures=\$ai_data_keys_failures revoked=\$ai_data_revoked rgen=\$ai_data_revoked_generation rrecords=\$ai_data_revoked_records none=\$ai_data_nothing pid=\$pid\\n";
        }

        $opt{server}
    }
}
END
}

# data: { name => content } in the directory of ai_data; conf: options of
# keys_conf(); started unless start is 0

sub keys_gateway {
    my (%opt) = @_;
    my $data = delete $opt{data} // {};
    my $start = delete $opt{start} // 1;
    my %conf = (who => '', server => '', %{ delete $opt{conf} // {} });

    my $gw = AI::Gateway->new(files => { who => "ok\n" }, %opt);

    mkdir "$gw->{dir}/data";
    $gw->write_file("data/$_", $data->{$_}) for keys %$data;
    $gw->write_conf(keys_conf(%conf));

    return $start ? $gw->start : $gw;
}

# one request on a kept connection, a new one without; status, key id, pid

sub ask {
    my ($gw, $key, %opt) = @_;

    my $fh = $opt{on} // IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $gw->port, Proto => 'tcp',
        Timeout => 5) or return [ 0, '', 0 ];

    my $path = $opt{path} // '/who';
    my @headers = defined $key ? "Authorization: Bearer $key\r\n" : ();

    setsockopt $fh, IPPROTO_TCP, TCP_NODELAY, 1 if !$opt{on};

    # a worker that has ended is no reason to end
    local $SIG{PIPE} = 'IGNORE';

    syswrite $fh, "GET $path HTTP/1.1\r\nHost: localhost\r\n"
                  . join('', @headers, @{ $opt{headers} // [] }) . "\r\n";

    my $in = '';

    while ($in !~ /\r\n\r\n/) {
        sysread($fh, $in, 65536, length $in) or return [ 0, '', 0 ];
    }

    my ($length) = $in =~ /^Content-Length: (\d+)/mi;
    my $head = index($in, "\r\n\r\n") + 4;

    while (length($in) < $head + ($length // 0)) {
        sysread($fh, $in, 65536, length $in) or last;
    }

    my ($status) = $in =~ m{^HTTP/1.1 (\d+)};
    my ($id) = $in =~ /^X-Key: (\S+)/mi;
    my ($pid) = $in =~ /^X-Pid: (\d+)/mi;
    my ($generation) = $in =~ /^X-Generation: (\d+)/mi;

    return [ $status, $id // '', $pid // 0, $generation // 0,
             substr($in, $head), $in ];
}

# { state => 'ok', gen => 1, ... }

sub status_of {
    my ($gw) = @_;
    my $text = ask($gw, undef, path => '/status')->[4];

    return { map { /^(\w+)=(.*)/ ? ($1, $2) : () } split ' ', $text };
}

# calls $check until it is true; the seconds it took, undef: not within so many
# (15 at least)

sub within {
    my ($check, $seconds) = @_;
    my $start = time();
    my $slower = $ENV{TEST_AI_VALGRIND} ? 10 : 1;

    $seconds = 15 if $seconds < 15;

    while (1) {
        return time() - $start if $check->();
        return undef if time() - $start > $seconds * $slower;
        sleep 0.01;
    }
}

1;
