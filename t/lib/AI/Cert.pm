package AI::Cert;

# Copyright (C) nginx AI gateway authors

# Certificates for tests: one authority, and leaves for any names.

use strict;
use warnings;

# AI::Cert->new(dir => DIR): $cert->{ca} is the authority's file

sub new {
    my ($class, %arg) = @_;
    my $self = bless { dir => $arg{dir}, n => 0 }, $class;

    $self->{ca} = "$arg{dir}/ca.crt";
    $self->{ca_key} = "$arg{dir}/ca.key";

    openssl(qw(req -x509 -newkey rsa:2048 -nodes -days 30),
            -subj => '/CN=Test authority',
            -keyout => $self->{ca_key}, -out => $self->{ca});

    return $self;
}

# ($file, $key_file) for DNS names and addresses; expired => 1 for one that
# was valid once

sub leaf {
    my ($self, $names, %opt) = @_;
    my $base = "$self->{dir}/leaf" . ++$self->{n};

    my $san = join ',', map { (/^[\d.]+$|:/ ? 'IP:' : 'DNS:') . $_ } @$names;

    open my $f, '>', "$base.ext" or die "$base.ext: $!";
    print $f "subjectAltName=$san\n";
    close $f;

    openssl(qw(req -newkey rsa:2048 -nodes), -subj => "/CN=$names->[0]",
            -keyout => "$base.key", -out => "$base.csr");

    # negative days are refused by some versions; 0 has ended at once
    openssl(qw(x509 -req -set_serial), 100 + $self->{n},
            -days => $opt{expired} ? 0 : 30,
            -in => "$base.csr", -out => "$base.crt",
            -CA => $self->{ca}, -CAkey => $self->{ca_key},
            -extfile => "$base.ext");

    return ("$base.crt", "$base.key");
}

sub openssl {
    my @cmd = ('openssl', @_);
    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec @cmd or do { require POSIX; POSIX::_exit(127) };
    }

    waitpid $pid, 0;
    die "@cmd failed" if $? != 0;
}

1;
