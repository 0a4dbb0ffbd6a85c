package AI::Gateway;

# Copyright (C) nginx AI gateway authors

# An nginx with the modules, for a test:
#
#     my $gw = AI::Gateway->new(conf => <<'END');
#     events {}
#     http {
#         ai_provider p { endpoint http://127.0.0.1:%%PORT_1%%; key none; }
#         server { listen 127.0.0.1:%%PORT_0%%; location / { ai_pass p; } }
#     }
#     END
#
#     $gw->start;  $gw->client->post('/v1/chat/completions', { ... });
#
# %%PORT_n%% is a free port, the same for the same n; ports => { 1 => $port }
# sets one.  %%DIR%% is the test's own directory.  %%MODULES%% stands for the
# load_module lines, which are added in front when it is absent.  What every
# configuration needs (pid, error_log, paths) is put on the first line and on
# that of "http {": line numbers stay as written.
#
# Environment: TEST_NGINX_BINARY (default: nginx), TEST_AI_MODULES (directory
# of the modules, default build/modules; empty: they are in the binary),
# TEST_AI_VALGRIND=1, TEST_AI_KEEP=1 (keep directories), TEST_AI_DEBUG=1
# (error_log at level debug).

use strict;
use warnings;

use Cwd ();
use File::Basename qw(dirname basename);
use File::Path qw(remove_tree);
use File::Temp ();
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);
use Test::More ();
use Time::HiRes qw(time);

use AI::Client;
use AI::Port;

our $top = Cwd::abs_path(dirname(__FILE__) . '/../../..');
our $binary = find_binary();

my $owner = $$;
my $valgrind = $ENV{TEST_AI_VALGRIND};
my $slower = $valgrind ? 10 : 1;
my @all;

# conf; also ports, workers (1), main (lines of the main context), level
# (info), daemon (1: as a service; upgrade() needs it), env ({ NAME => value } of the nginx process), load (names of
# modules in their order; [] for none), allow (patterns of [alert] and [emerg]
# messages that are expected), files ({ name => content } in %%DIR%%)

sub new {
    my ($class, %arg) = @_;

    my $self = bless {
        workers => 1, ports => {}, allow => [], env => {}, %arg,
        dir => File::Temp::tempdir('ai-test-XXXXXX', TMPDIR => 1),
    }, $class;

    mkdir "$self->{dir}/$_" for qw(logs temp);

    # workers of a master that runs as root may not enter it else
    chmod 0755, $self->{dir};

    $self->write_file($_, $self->{files}{$_}) for keys %{ $self->{files} };
    $self->write_conf($arg{conf}) if defined $arg{conf};

    push @all, $self;

    return $self;
}

sub find_binary {
    my $name = $ENV{TEST_NGINX_BINARY} || 'nginx';

    return $name if $name =~ m{/};

    for (split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin') {
        return "$_/$name" if -x "$_/$name";
    }

    return $name;
}

# names of the modules that are there, in loading order; none when they are
# linked into the binary

sub modules {
    my $dir = modules_dir();
    return if !defined $dir;
    return map { basename($_, '.so') } sort glob "$dir/*.so";
}

sub modules_dir {
    my $dir = $ENV{TEST_AI_MODULES} // "$top/build/modules";
    return $dir eq '' ? undef : $dir;
}

# a reason to skip all tests of a file, or undef

sub missing {
    return "no $binary" if !-x $binary;

    my $dir = modules_dir();

    return if !defined $dir;
    return "no modules in $dir, run ./build.sh" if !modules();
    return;
}

sub dir { $_[0]{dir} }

sub port {
    my ($self, $n) = @_;
    return $self->{ports}{$n // 0} //= AI::Port::free_port();
}

sub client {
    my ($self, %opt) = @_;
    return AI::Client->new(port => $self->port($opt{n}), %opt);
}

sub write_file {
    my ($self, $name, $content) = @_;

    open my $f, '>', "$self->{dir}/$name" or die "$name: $!";
    print $f $content;
    close $f or die "$name: $!";

    return "$self->{dir}/$name";
}

sub read_file {
    my ($self, $name) = @_;

    open my $f, '<', "$self->{dir}/$name" or return '';
    local $/;

    return <$f> // '';
}

sub expand {
    my ($self, $text) = @_;

    $text =~ s/%%PORT_(\w+)%%/$self->port($1)/ge;
    $text =~ s/%%DIR%%/$self->{dir}/g;

    return $text;
}

sub write_conf {
    my ($self, $conf) = @_;
    my $dir = $self->{dir};
    my $modules_dir = modules_dir();

    my $load = defined $modules_dir
               ? join ' ', map { "load_module $modules_dir/$_.so;" }
                           @{ $self->{load} // [ modules() ] }
               : '';

    my $main = "pid $dir/nginx.pid; lock_file $dir/nginx.lock; "
               . "error_log $dir/error.log "
               . ($ENV{TEST_AI_DEBUG} ? 'debug' : $self->{level} // 'info')
               . '; ';

    # for a binary that another one starts, nginx clears its environment
    $main .= join '', map { "env $_; " } grep { defined $ENV{$_} }
             qw(ASAN_OPTIONS UBSAN_OPTIONS);

    # exit codes and signals of a child come to us
    $main .= 'daemon off; ' if !$self->{daemon};
    $main .= "worker_processes $self->{workers}; " . ($self->{main} // '')
             . ' ';
    $main .= 'user root; ' if $> == 0 && $conf !~ /^\s*user\s/m;

    $main = "$load $main" if $conf !~ s/%%MODULES%%/$load/;

    my $http = join ' ', map { "${_}_temp_path $dir/temp/$_;" }
               qw(client_body proxy fastcgi uwsgi scgi);

    # not every build has all of them
    $http = join ' ', grep { supports((split)[0]) } split /(?<=;) /, $http;
    $http .= " access_log $dir/access.log;" if $conf !~ /access_log/;

    $conf = $self->expand($conf);
    $conf =~ s/^(\s*http\s*\{)/$1 $http/m;

    $self->write_file('nginx.conf', "$main$conf");
    $self->{text} = $conf;
}

my $features;

sub supports {
    my ($directive) = @_;
    my ($name) = $directive =~ /^([a-z]+)_temp_path$/ or return 1;

    $features //= `"$binary" -V 2>&1`;

    return $features !~ /--without-http_${name}_module/;
}

# was nginx built --with-NAME?

sub has {
    my ($name) = @_;

    $features //= `"$binary" -V 2>&1`;

    return $features =~ /--with-\Q$name\E\b/;
}

# version as nginx_version has it: 1022001

sub version {
    $features //= `"$binary" -V 2>&1`;
    my @v = $features =~ m{nginx version: [^/]+/(\d+)\.(\d+)\.(\d+)} or return 0;
    return $v[0] * 1000000 + $v[1] * 1000 + $v[2];
}

# (exit code, all it said) of nginx -t

sub conf_test {
    my ($self) = @_;
    my $out = "$self->{dir}/conf_test.out";

    my $pid = $self->spawn($out, '-t', '-q');
    waitpid $pid, 0;

    my $rc = $? >> 8;
    my $text = $self->read_file('conf_test.out');

    # messages go to the log as well once its directive was read; they are
    # what the caller asked for
    unlink "$self->{dir}/error.log" if !$self->{pid};

    if ($? & 127) {
        $rc = 128 + ($? & 127);
        push @{ $self->{problems} }, "nginx -t ended by signal " . ($? & 127);
    }

    push @{ $self->{problems} }, grep { /Sanitizer|runtime error/ }
                                 split /\n/, $text;

    return ($rc, $text);
}

sub spawn {
    my ($self, $out, @args) = @_;
    my @cmd = ($binary, '-p', "$self->{dir}/", '-c', "$self->{dir}/nginx.conf",
               @args);

    # -e exists since 1.19.5: what is said before error_log is read
    push @cmd, '-e', 'stderr' if version() >= 1019005;

    if ($valgrind) {
        unshift @cmd, 'valgrind', '-q', '--trace-children=yes',
            '--leak-check=full', '--show-leak-kinds=definite',
            '--errors-for-leak-kinds=definite', '--num-callers=30',
            "--suppressions=$top/t/valgrind.supp",
            "--log-file=$self->{dir}/valgrind.%p";
    }

    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        setpgrp;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $out;
        open STDERR, '>&', \*STDOUT;

        $ENV{$_} = $self->{env}{$_} for keys %{ $self->{env} };

        exec @cmd or print STDERR "exec $cmd[0]: $!\n";
        POSIX::_exit(127);
    }

    return $pid;
}

# runs nginx and waits until it listens; dies when it does not start

sub start {
    my ($self) = @_;

    die "nginx runs already" if $self->{pid};

    my $pid = $self->spawn("$self->{dir}/stderr.log");

    $self->{pid} = $self->{group} = $pid;

    if ($self->{daemon}) {
        waitpid $pid, 0;
        $self->wait_for(sub { $self->master });

        # a daemon leads a group of its own
        $self->{pid} = $self->{group} = $self->master // $pid;
    }

    if (!$self->wait_listen) {
        Test::More::diag($self->read_file('stderr.log') . $self->error_log);
        die "nginx did not start";
    }

    return $self;
}

sub listen_ports {
    my ($self) = @_;
    my %port;

    while ($self->{text} =~ /^[^#\n]*?\blisten\s+([^;]+);/mg) {
        my $value = $1;
        next if $value =~ /\bquic\b|unix:/;
        $port{$1} = 1 if $value =~ /^(?:\S+:)?(\d+)/;
    }

    return sort keys %port;
}

sub wait_listen {
    my ($self) = @_;
    my $pid = $self->{pid};
    my @waiting = $self->listen_ports;

    return $self->wait_for(sub {
        # a dead nginx will not listen any more
        return -1 if !alive($pid);

        @waiting = grep {
            !IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_,
                                   Proto => 'tcp')
        } @waiting;

        return !@waiting && $self->master;
    }) > 0;
}

# calls $check until it is true, at most so many seconds; 15 at least, as the
# machine may do other things: how long something takes is for the caller to
# measure

sub wait_for {
    my ($self, $check, $seconds) = @_;

    $seconds = 15 if !defined $seconds || $seconds < 15;

    return until_true($check, $seconds);
}

sub until_true {
    my ($check, $seconds) = @_;
    my $end = time() + $seconds * $slower;

    while (1) {
        my $v = $check->();
        return $v if $v || time() > $end;
        select undef, undef, undef, 0.02;
    }
}

sub master {
    my ($self) = @_;
    my ($pid) = $self->read_file('nginx.pid') =~ /(\d+)/;
    return $pid;
}

# pids of the workers of a master

sub workers {
    my ($self, $master) = @_;
    $master //= $self->master // return;
    my @pids;

    for my $stat (glob '/proc/[0-9]*/stat') {
        open my $f, '<', $stat or next;
        my ($pid, $state, $ppid) = (<$f> // '') =~ /^(\d+) \(.*\) (\S) (\d+)/
            or next;
        push @pids, $pid if $ppid == $master && $state ne 'Z';
    }

    @pids = sort { $a <=> $b } @pids;
    return @pids;
}

# a zombie has ended, even if nobody asks for its status

sub alive {
    my ($pid) = @_;

    waitpid $pid, WNOHANG;
    return if !kill 0, $pid;

    open my $f, '<', "/proc/$pid/stat" or return -d '/proc/self' ? 0 : 1;

    return (<$f> // '') !~ /\) Z /;
}

# with a new configuration, if one is given; waits for the new workers and,
# unless wait_old is 0, for the end of the old ones

sub reload {
    my ($self, %opt) = @_;
    my %old = map { $_ => 1 } $self->workers;

    $self->write_conf($opt{conf}) if defined $opt{conf};
    kill 'HUP', $self->master;

    return $self->wait_for(sub {
        my @now = $self->workers;
        my @new = grep { !$old{$_} } @now;

        return @new && ($opt{wait_old} // 1 ? @new == @now : 1);
    });
}

# USR2, and QUIT to the old master: another binary takes over.  nginx ignores
# USR2 while its parent is the process that started it: daemon => 1

sub upgrade {
    my ($self) = @_;
    my $old = $self->master;

    kill 'USR2', $old;

    $self->wait_for(sub {
        my $new = $self->master;
        return $new && $new != $old && $self->workers($new);
    }) or return;

    kill 'QUIT', $old;
    $self->wait_for(sub { !alive($old) }) or return;
    $self->{pid} = $self->master;

    return 1;
}

# QUIT: running requests end first; TERM when they do not; then KILL

sub stop {
    my ($self, %opt) = @_;
    my $pid = delete $self->{pid} or return;

    for my $signal ($opt{signal} // 'QUIT', 'TERM') {
        kill $signal, $pid;

        return 1 if until_true(sub { !alive($pid) }, $opt{wait} // 3);
    }

    kill 'KILL', -$self->{group};
    waitpid $pid, 0;
    push @{ $self->{problems} }, "nginx did not end by TERM, was killed";

    return;
}

sub error_log { $_[0]->read_file('error.log') }

sub access_log {
    my ($self) = @_;
    return split /\n/, $self->read_file('access.log');
}

# waits for a line in a log: nginx writes its access log after the answer

sub wait_log {
    my ($self, $pattern, $file, $seconds) = @_;

    return $self->wait_for(sub {
        my ($line) = grep { /$pattern/ }
                     split /\n/, $self->read_file($file // 'error.log');
        return $line;
    }, $seconds);
}

# expects [alert] or [emerg] messages like these

sub allow {
    my ($self, @patterns) = @_;
    push @{ $self->{allow} }, @patterns;
}

# what is wrong with the log of a run

sub problems {
    my ($self) = @_;
    my @found = @{ $self->{problems} // [] };

    for my $file ('error.log', 'stderr.log') {
        for my $line (split /\n/, $self->read_file($file)) {

            if ($line =~ /\[(?:alert|emerg)\]/) {
                next if grep { $line =~ $_ } @{ $self->{allow} };
                push @found, $line;

            } elsif ($line =~ /ERROR:\ \w+Sanitizer|runtime\ error:
                               |exited\ on\ signal/x)
            {
                push @found, $line;
            }
        }
    }

    for my $file (glob "$self->{dir}/valgrind.*") {
        my $text = $self->read_file(basename($file));
        push @found, "$file:\n$text" if $text =~ /^==\d+== \S/m;
    }

    return @found;
}

# fails the test if something was wrong; called at the end of each test, and
# earlier by those that want to know earlier

sub finish {
    my ($self) = @_;

    return 1 if $self->{finished}++;

    $self->stop;

    my @found = $self->problems;

    if (@found) {
        Test::More::ok(0, 'no alert, crash or report of a checker');
        Test::More::diag($_) for @found[0 .. ($#found < 19 ? $#found : 19)];
        Test::More::diag("kept $self->{dir}");
        return;
    }

    $self->{clean} = 1;

    return 1;
}

# Test::More's own END runs after this one and sees what was found here

END {
    if ($$ == $owner) {
        my $status = $?;

        $_->finish for @all;

        my $passing = Test::More->builder->is_passing && $status == 0;

        for (@all) {
            # of a configuration that was only tested there is nothing to see
            my $worth = !$passing && -e "$_->{dir}/error.log";

            if ($_->{clean} && !$worth && !$ENV{TEST_AI_KEEP}) {
                remove_tree($_->{dir});

            } elsif ($_->{clean}) {
                Test::More::diag("kept $_->{dir}");
            }
        }

        $? = $status;
    }
}

1;
