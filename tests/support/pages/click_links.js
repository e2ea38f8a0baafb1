document.querySelectorAll('a').forEach(a => a.click());
document.documentElement.setAttribute('data-ran', 'yes');
