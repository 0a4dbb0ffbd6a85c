package AI::Prom;

# Copyright (C) nginx AI gateway authors

# A strict reader of Prometheus' text format and of OpenMetrics:
#
#     my $m = AI::Prom->read($text, openmetrics => 1);
#
#     $m->{wrong};                   # list of what is wrong with it
#     $m->value('nginx_ai_requests_total', model => 'm', outcome => 'error');
#     $m->sum('nginx_ai_requests_total', model => 'm');
#     $m->find('nginx_ai_requests_total');     # list of { labels, value }

use strict;
use warnings;

my %types = map { $_ => 1 } qw(counter gauge histogram info);

sub read {
    my ($class, $text, %opt) = @_;
    my $self = bless { wrong => [], samples => {}, type => {}, help => {} },
                     $class;
    my $om = $opt{openmetrics};
    my ($family, %seen, %done, $n);

    my $bad = sub { push @{ $self->{wrong} }, "line $n: $_[0]" };

    if (!utf8::decode(my $copy = $text)) {
        push @{ $self->{wrong} }, 'not UTF-8';
    }

    push @{ $self->{wrong} }, 'no line feed at the end' if $text !~ /\n\z/;
    push @{ $self->{wrong} }, 'no # EOF'  if $om && $text !~ /\n# EOF\n\z/;
    push @{ $self->{wrong} }, 'a # EOF' if !$om && $text =~ /^# EOF/m;

    for my $line (split /\n/, $text) {
        $n++;

        next if $line eq '# EOF';

        if ($line =~ /^# HELP ([a-zA-Z_][a-zA-Z0-9_]*) (.+)$/) {
            $bad->("HELP of $1 again") if $self->{help}{$1}++;
            $family = $1;
            next;
        }

        if ($line =~ /^# TYPE ([a-zA-Z_][a-zA-Z0-9_]*) (\w+)$/) {
            my ($name, $type) = ($1, $2);
            my $total = $name =~ /_total$/;

            $bad->("TYPE of $name is not behind its HELP")
                if $name ne ($family // '');
            $bad->("unknown type $type")
                if !$types{$type} || (!$om && $type eq 'info');
            $bad->("TYPE of $name again") if $self->{type}{$name};
            $bad->("$type $name")
                if ($total ? 1 : 0) != (!$om && $type eq 'counter' ? 1 : 0);

            $self->{type}{$name} = $type;
            next;
        }

        if ($line !~ /^([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*?)\})?\ (\S+)
                      (\ \#\ \{trace_id="[0-9a-f]{32}"\}\ [\d.]+\ [\d.]+)?$/x)
        {
            $bad->("not a sample: $line");
            next;
        }

        my ($name, $text, $value, $exemplar) = ($1, $2 // '', $3, $4);
        my $type = $self->{type}{ $family // '' } // '';
        my $base = $name;

        $base =~ s/_(?:bucket|sum|count)$// if $type eq 'histogram';
        $base =~ s/_total$// if $om && $type eq 'counter';
        $base =~ s/_info$//  if $om && $type eq 'info';

        $bad->("$name is not of family " . ($family // 'none'))
            if $base ne ($family // '');
        $bad->("counter without _total: $name")
            if $type eq 'counter' && $name !~ /_total$/;
        $bad->("an exemplar") if $exemplar && (!$om || $name !~ /_bucket$/);
        $bad->("value $value") if $value !~ /^-?\d+(?:\.\d+)?$/;

        my %labels;

        while ($text =~ /\G(?:^|,)([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/gc)
        {
            my ($l, $v) = ($1, $2);
            $bad->("label $l twice") if exists $labels{$l};
            $v =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ge;
            $labels{$l} = $v;
        }

        $bad->("labels of $line") if (pos($text) // 0) != length $text;

        my $key = join "\0", $name, map { "$_\0$labels{$_}" } sort keys %labels;
        $bad->("again: $line") if $seen{$key}++;

        push @{ $self->{samples}{$name} },
             { labels => \%labels, value => $value,
               $exemplar ? (exemplar => $exemplar) : () };
    }

    $self->histograms;

    return $self;
}

# buckets rise, the last one is the count

sub histograms {
    my ($self) = @_;

    for my $name (grep { $self->{type}{$_} eq 'histogram' }
                  sort keys %{ $self->{type} })
    {
        my %last;

        for my $s (@{ $self->{samples}{"${name}_bucket"} // [] }) {
            my %l = %{ $s->{labels} };
            my $le = delete $l{le};
            my $key = join "\0", map { "$_\0$l{$_}" } sort keys %l;
            my $last = $last{$key} //= [ -1, 0 ];

            $le = 9e99 if $le eq '+Inf';

            push @{ $self->{wrong} }, "buckets of $name"
                if $le <= $last->[0] || $s->{value} < $last->[1];

            $last{$key} = [ $le, $s->{value} ];
        }

        for my $s (@{ $self->{samples}{"${name}_count"} // [] }) {
            my %l = %{ $s->{labels} };
            my $key = join "\0", map { "$_\0$l{$_}" } sort keys %l;
            my $last = $last{$key} // [ 0, -1 ];

            push @{ $self->{wrong} }, "count of $name"
                if $last->[0] != 9e99 || $last->[1] != $s->{value};
        }
    }
}

sub find {
    my ($self, $name, %labels) = @_;

    return grep {
        my $s = $_;
        !grep { ($s->{labels}{$_} // '') ne $labels{$_} } keys %labels;
    } @{ $self->{samples}{$name} // [] };
}

sub value {
    my ($self, @what) = @_;
    my @found = $self->find(@what);

    return @found == 1 ? $found[0]{value} : @found ? 'many' : undef;
}

sub sum {
    my ($self, @what) = @_;
    my $sum = 0;

    $sum += $_->{value} for $self->find(@what);

    return $sum;
}

# how many lines of samples

sub count {
    my ($self) = @_;
    my $n = 0;

    $n += @$_ for values %{ $self->{samples} };

    return $n;
}

sub promtool {
    my ($path) = grep { -x } map { "$_/promtool" } split(/:/, $ENV{PATH}),
                                                   '/usr/bin';
    return $path;
}

# what "promtool check metrics" says of a text, in a directory for files; ''
# when it likes it

sub lint {
    my ($text, $dir) = @_;
    my $tool = promtool();

    open my $f, '>', "$dir/scrape.txt" or die "$dir/scrape.txt: $!";
    print $f $text;
    close $f;

    my $out = `"$tool" check metrics < "$dir/scrape.txt" 2>&1`;

    return $? ? "$?: $out" : $out;
}

sub prometheus {
    my ($path) = grep { -x } map { "$_/prometheus" } split(/:/, $ENV{PATH}),
                                                     '/usr/bin';
    return $path;
}

1;
