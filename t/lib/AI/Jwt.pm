package AI::Jwt;

# Copyright (C) nginx AI gateway authors

# Keys and tokens for tests, by the openssl program:
#
#     my $jwt = AI::Jwt->new(dir => $dir);
#     my $key = $jwt->key('RS256', kid => 'a');       # or ES256, EdDSA, ...
#     my $hs = $jwt->secret('HS256', 'x' x 32);
#
#     AI::Jwt::jwks($key, ...);                       # text of a key set
#     $jwt->token($key, { iss => ..., ... }, typ => 'at+jwt');

use strict;
use warnings;

use Digest::SHA ();
use JSON::PP;
use MIME::Base64 qw(encode_base64url);

my $json = JSON::PP->new->canonical;

my %curves = (ES256 => [ 'prime256v1', 32, 'P-256' ],
              ES384 => [ 'secp384r1', 48, 'P-384' ],
              ES512 => [ 'secp521r1', 66, 'P-521' ]);

# a reason to skip tests, or undef

sub missing {
    my $version = `openssl version 2>/dev/null`;

    return 'no openssl' if !$version;
    return 'openssl is older than 3.0' if $version !~ /^OpenSSL [3-9]/;
    return;
}

sub new {
    my ($class, %arg) = @_;
    return bless { n => 0, %arg }, $class;
}

# kid, bits; jwk => { members to add or, with undef, to leave out }

sub key {
    my ($self, $alg, %opt) = @_;
    my $file = "$self->{dir}/jwt" . ++$self->{n} . '.key';
    my $jwk;

    if ($alg =~ /^[RP]S/) {
        openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt',
                'rsa_keygen_bits:' . ($opt{bits} // 2048), '-out', $file);

        my ($n) = openssl('rsa', '-in', $file, '-noout', '-modulus')
                  =~ /Modulus=([0-9A-F]+)/;
        $jwk = { kty => 'RSA', n => encode_base64url(pack 'H*', $n),
                 e => 'AQAB' };

    } elsif (my $curve = $curves{$alg}) {
        my ($name, $size, $crv) = @$curve;

        openssl('genpkey', '-algorithm', 'EC', '-pkeyopt',
                "ec_paramgen_curve:$name", '-out', $file);

        my $der = openssl('pkey', '-in', $file, '-pubout', '-outform', 'DER');
        my $point = substr $der, -2 * $size;
        $jwk = { kty => 'EC', crv => $crv,
                 x => encode_base64url(substr $point, 0, $size),
                 y => encode_base64url(substr $point, $size) };

    } elsif ($alg eq 'EdDSA') {
        openssl('genpkey', '-algorithm', 'ED25519', '-out', $file);

        my $der = openssl('pkey', '-in', $file, '-pubout', '-outform', 'DER');
        $jwk = { kty => 'OKP', crv => 'Ed25519',
                 x => encode_base64url(substr $der, -32) };

    } else {
        die "no key for $alg";
    }

    $jwk->{kid} = $opt{kid} if defined $opt{kid};
    $jwk->{alg} = $alg;

    for my $name (keys %{ $opt{jwk} }) {
        $jwk->{$name} = $opt{jwk}{$name};
        delete $jwk->{$name} if !defined $jwk->{$name};
    }

    return { alg => $alg, kid => $opt{kid}, file => $file, jwk => $jwk };
}

sub secret {
    my ($self, $alg, $secret, %opt) = @_;

    return { alg => $alg, kid => $opt{kid}, secret => $secret,
             jwk => { kty => 'oct', alg => $alg,
                      k => encode_base64url($secret),
                      defined $opt{kid} ? (kid => $opt{kid}) : () } };
}

sub jwks { return $json->encode({ keys => [ map { $_->{jwk} } @_ ] }) }

# claims may be a hash or JSON text; members of the header follow, with undef
# for one to leave out

sub token {
    my ($self, $key, $claims, %header) = @_;

    my %h = (alg => $key->{alg}, typ => 'JWT',
             defined $key->{kid} ? (kid => $key->{kid}) : (), %header);
    delete $h{$_} for grep { !defined $h{$_} } keys %h;

    my $text = encode_base64url($json->encode(\%h)) . '.'
               . encode_base64url(ref $claims ? $json->encode($claims)
                                              : $claims);

    return "$text." . encode_base64url($self->sign($key, $text));
}

sub sign {
    my ($self, $key, $text) = @_;
    my ($kind, $bits) = $key->{alg} =~ /^([A-Za-z]+?)(\d*)$/;

    if ($kind eq 'HS') {
        no strict 'refs';
        return &{"Digest::SHA::hmac_sha$bits"}($text, $key->{secret});
    }

    my $in = "$self->{dir}/jwt.in";

    open my $f, '>', $in or die "$in: $!";
    print $f $text;
    close $f;

    if ($kind eq 'EdDSA') {
        return openssl('pkeyutl', '-sign', '-rawin', '-inkey', $key->{file},
                       '-in', $in);
    }

    my $signature = openssl('dgst', "-sha$bits", '-sign', $key->{file},
                            $kind eq 'PS'
                            ? ('-sigopt', 'rsa_padding_mode:pss',
                               '-sigopt', 'rsa_pss_saltlen:digest') : (),
                            $in);

    return $signature if $kind ne 'ES';

    # SEQUENCE { INTEGER r, INTEGER s } to r and s of one length

    my $size = $curves{$key->{alg}}[1];
    my $at = ord(substr $signature, 1, 1) & 0x80 ? 3 : 2;
    my $raw = '';

    for (1, 2) {
        my $len = ord substr $signature, $at + 1, 1;
        my $n = substr $signature, $at + 2, $len;

        $n =~ s/^\0+//;
        $raw .= ("\0" x ($size - length $n)) . $n;
        $at += 2 + $len;
    }

    return $raw;
}

sub openssl {
    my @cmd = ('openssl', @_);
    my $pid = open(my $f, '-|') // die "fork: $!";

    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec @cmd or do { require POSIX; POSIX::_exit(127) };
    }

    binmode $f;
    local $/;
    my $out = <$f> // '';
    close $f or die "@cmd failed";

    return $out;
}

1;
